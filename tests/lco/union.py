"""One tiny configuration of every algorithm of the union, and of some of their options."""

from typing import Any

DPO = {"name": "dpo"}
LOGPROB = {"name": "logprob"}
SPARSE = {"name": "sparse"}
RATIO = {"name": "dpo-ratio"}
GAE = {"name": "gae", "critic": {"learning_rate": 0.003}}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "lco-kld": {"name": "lco-kld", "advantage": DPO},
    "lco-kld-top-k": {"name": "lco-kld", "advantage": DPO, "support": {"name": "top-k", "k": 3}},
    "lco-kld-sparse": {"name": "lco-kld", "beta": 0.5, "advantage": SPARSE, "token_reduction": "sequence-mean"},
    "lco-kld-ratio": {"name": "lco-kld", "advantage": RATIO | {"credit": "token"}},
    "lco-lch": {"name": "lco-lch", "advantage": DPO, "center": True, "scale": "global"},
    "lco-mse": {"name": "lco-mse", "advantage": LOGPROB, "beta": 1.0, "center": True, "gate_threshold": -0.5},
    "reinforce": {"name": "reinforce", "advantage": DPO},
    "reinforce-plus-plus": {"name": "reinforce-plus-plus"},
    "reinforce-plus-plus-baseline": {"name": "reinforce-plus-plus-baseline"},
    "stable-reinforce": {"name": "stable-reinforce", "advantage_filter": 1.0},
    "rloo": {"name": "rloo", "advantage": RATIO | {"estimator": "leave-one-out"}},
    "ppo": {"name": "ppo", "advantage": DPO, "whiten": True},
    "ppo-critic": {"name": "ppo-critic", "advantage": GAE | {"bootstrap_truncated": True}},
    "vc-ppo": {"name": "vc-ppo", "advantage": GAE | {"critic_lambda": 1.0, "value_pretraining_iterations": 1}},
    "lco-kld-gae": {"name": "lco-kld", "beta": 0.5, "advantage": GAE},
    "grpo": {"name": "grpo", "kl_weight": 0.1, "is_kl_corrected": True, "ratio_cap": 1.5},
    "dr-grpo": {
        "name": "grpo",
        "advantage": SPARSE | {"estimator": "group-centered"},
        "token_reduction": "fixed-length",
    },
    "luspo": {"name": "grpo", "ratio_level": "sequence", "token_reduction": "sequence-sum"},
    "gspo": {"name": "gspo"},
    "dapo": {"name": "dapo", "overlong_filter": True, "max_sampling_rounds": 3},
    "dcpo": {"name": "dcpo"},
    "cispo": {"name": "cispo"},
    "clip-cov": {"name": "clip-cov", "share": 0.05, "covariance_low": 0.0},
    "kl-cov": {"name": "kl-cov", "share": 0.05},
    "gkd": {"name": "gkd", "advantage": LOGPROB},
    "minillm": {"name": "minillm", "advantage": LOGPROB},
    "minillm-alone": {"name": "minillm", "advantage": LOGPROB, "teacher_mix": 0.0, "single_step": False},
}
