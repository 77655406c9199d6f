// Numbers and times as people read them.

/** "now", "12 s ago", "3 min ago", "2 h ago", "5 days ago"; "in 20 s" for what is to come. */
export function agoText(timestamp) {
  const seconds = Math.round((Date.now() - Date.parse(timestamp)) / 1000);
  if (Number.isNaN(seconds)) return "";
  const size = Math.abs(seconds);
  if (size < 2) return "now";
  const text = size < 60 ? `${size} s`
    : size < 3600 ? `${Math.floor(size / 60)} min`
    : size < 86400 ? `${Math.floor(size / 3600)} h`
    : size < 172800 ? "1 day" : `${Math.floor(size / 86400)} days`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

/** Up to four significant digits, exponents where they help. */
export function numberText(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

const TITLES = new Map([
  ["train/loss", "Loss"],
  ["train/reward", "Reward"],
  ["train/accuracy", "Accuracy, training"],
  ["eval/accuracy", "Accuracy, validation"],
  ["train/grad_norm", "Gradient norm"],
  ["train/grad_norm_qkv", "Gradient norm, q/k/v"],
  ["train/entropy", "Entropy"],
  ["train/action_prob", "Action probability"],
  ["train/kl_old", "KL to behaviour"],
  ["train/kl_old_k3", "KL to behaviour, k3"],
  ["train/kl_reference", "KL to reference"],
  ["train/learning_rate", "Learning rate"],
  ["train/kl_target", "KL to target"],
  ["train/kl_target_old", "KL, target to behaviour"],
  ["train/tv_target", "Total variation to target"],
  ["train/target_entropy", "Entropy of the target"],
  ["train/target_support", "Effective support of the target"],
  ["train/residual", "Residual to the target"],
  ["train/clip_fraction", "Clip fraction"],
  ["train/advantage_std", "Advantage, std"],
  ["train/advantage_std_steps", "Advantage, std of a step"],
  ["train/advantage_max", "Advantage, largest"],
  ["train/support_mass", "Mass of the support"],
  ["train/gated", "Gated tokens"],
  ["train/reward_std", "Reward, std"],
  ["train/reward_relevance", "Reward, relevance"],
  ["train/reward_factuality", "Reward, factuality"],
  ["train/reward_completeness", "Reward, completeness"],
  ["train/num_unrewarded", "Without a reward"],
  ["train/zero_std_groups", "Groups of one reward"],
  ["train/completion_tokens", "Completion tokens"],
  ["train/completion_tokens_max", "Completion tokens, longest"],
  ["train/grader_timeout", "Grader timeouts"],
  ["train/truncated", "Truncated"],
  ["train/value_loss", "Value loss"],
  ["train/explained_variance", "Explained variance"],
  ["train/value_clip_fraction", "Value clip fraction"],
  ["train/critic_grad_norm", "Gradient norm, critic"],
  ["train/critic_learning_rate", "Learning rate, critic"],
  ["train/num_tokens", "Trained tokens"],
  ["train/grad_norm_positive", "Gradient norm, A > 0"],
  ["train/grad_norm_negative", "Gradient norm, A < 0"],
  ["train/grad_bound", "Bound on the gradient norm"],
  ["train/num_pairs", "Pairs"],
  ["train/margin", "Margin"],
  ["time/step_seconds", "Seconds a step"],
]);

/** The title of a metric's chart; a metric without one keeps its own name. */
export function titleOf(key) {
  return TITLES.get(key) ?? key;
}

/** Well-known metrics first, in the order above, then the others by name. */
export function inOrder(keys) {
  const known = [...TITLES.keys()];
  const rank = (key) => (known.includes(key) ? known.indexOf(key) : known.length);
  return [...keys].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}
