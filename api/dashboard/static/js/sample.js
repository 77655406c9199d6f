// The form that asks policies: sends its fields as JSON, then opens the page where completions come in. Text from the server is only ever set as text.

const listed = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);

function documentOf(form) {
  const fields = form.elements;
  const policies = [...form.querySelectorAll("input[name=policy]")].map((input) => input.value.trim()).filter(Boolean);
  return {
    policies: policies.map((policy) => ({ policy })),
    prompts: fields.prompts.value.split(/\n-{3,}[ \t]*\n/).map((text) => text.trim()).filter(Boolean),
    decodings: listed(fields.decodings.value),
    eval_seeds: listed(fields.eval_seeds.value).map(Number),
    max_tokens: Number(fields.max_tokens.value),
  };
}

async function send(form) {
  const response = await fetch(form.getAttribute("action"), {
    method: "POST",
    headers: { "Content-Type": "application/json", accept: "application/json" },
    body: JSON.stringify(documentOf(form)),
  });
  if (response.redirected || response.status === 401) return window.location.reload();
  const answer = await response.json().catch(() => ({}));
  if (response.ok) {
    window.location.assign(`/sample/${answer.id}`);
    return "Asking.";
  }
  const rows = (answer.errors ?? []).map((error) => `${error.pointer}: ${error.message}`);
  return rows.join("; ") || answer.detail || `The server answered ${response.status}.`;
}

document.addEventListener("submit", async (event) => {
  const form = event.target instanceof Element ? event.target.closest("form[data-sample]") : null;
  if (!form) return;
  event.preventDefault();
  const told = form.querySelector("output");
  const button = form.querySelector("button");
  button.disabled = true;
  told.textContent = "Asking.";
  try {
    told.textContent = (await send(form)) ?? "";
  } catch {
    told.textContent = "The server cannot be reached.";
  } finally {
    button.disabled = false;
  }
});
