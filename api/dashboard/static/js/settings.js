// Forms that send their fields as JSON: `data-send` is the method. A new key is shown once. Text from the server is only ever set as text.

/** The fields of a form: a number or null for number inputs, text else; text that was left empty is left out. */
function fields(form) {
  const found = {};
  for (const input of form.elements) {
    if (!input.name) continue;
    if (input.type === "number") {
      if (input.value !== "") found[input.name] = Number(input.value) * Number(input.dataset.times ?? 1);
      else if (!("optional" in input.dataset)) found[input.name] = null;
    } else if (input.value !== "") found[input.name] = input.value;
  }
  return found;
}

function showKey(told, key) {
  const code = document.createElement("code");
  code.textContent = key;
  const copy = document.createElement("button");
  copy.type = "button";
  copy.className = "copy";
  copy.dataset.copy = key;
  copy.textContent = "copy";
  told.replaceChildren("Keep it now, it is shown this once: ", code, " ", copy);
}

async function send(form) {
  const told = form.querySelector("output");
  const headers = { "Content-Type": "application/json", accept: "application/json" };
  const response = await fetch(form.getAttribute("action"), { method: form.dataset.send, headers, body: JSON.stringify(fields(form)) });
  if (response.redirected || response.status === 401) return window.location.reload();
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const errors = (answer.errors ?? []).map((error) => `${error.pointer.slice(1)}: ${error.message}`);
    told.textContent = errors.join("; ") || answer.detail || `The server answered ${response.status}.`;
    return;
  }
  if (answer.key) showKey(told, answer.key);
  else told.textContent = form.dataset.done ?? "Done.";
  if (form.dataset.send === "POST") form.reset();
  window.htmx?.trigger(document.querySelector("#live"), "refresh");
}

document.addEventListener("submit", async (event) => {
  const form = event.target instanceof Element ? event.target.closest("form[data-send]") : null;
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("button:not(.copy)");
  button.disabled = true;
  try {
    await send(form);
  } catch {
    form.querySelector("output").textContent = "The server cannot be reached.";
  } finally {
    button.disabled = false;
  }
});
