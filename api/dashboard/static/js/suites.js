// The form that asks a suite for a verdict sends JSON, and goes to the verdict. Text from the server is only ever set as text.

async function judge(form) {
  const body = JSON.stringify({ checkpoint: form.elements.checkpoint.value.trim() });
  const response = await fetch(form.getAttribute("action"), { method: "POST", body, headers: { "Content-Type": "application/json" } });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) {
    window.location.assign(`/verdicts/${answer.id}`);
    return "";
  }
  return (answer.errors ?? []).map((error) => error.message).join("; ") || answer.detail || `The server answered ${response.status}.`;
}

document.addEventListener("submit", async (event) => {
  const form = event.target instanceof Element ? event.target.closest("form[data-judge]") : null;
  if (!form) return;
  event.preventDefault();
  const told = form.querySelector("output");
  const button = form.querySelector("button");
  button.disabled = true;
  told.textContent = "";
  try {
    told.textContent = await judge(form);
  } catch {
    told.textContent = "The server cannot be reached.";
  } finally {
    button.disabled = false;
  }
});
