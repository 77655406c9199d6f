// Forms that add a schedule or an endpoint: what they hold becomes the JSON body of their route. Text from the server is only ever set as text.

const BODIES = {
  schedule(fields) {
    const document = JSON.parse(fields.document);
    const action = Array.isArray(document.jobs) ? { kind: "experiment", document } : { kind: "job", spec: document };
    const trigger = { kind: "cron", expression: fields.expression.trim(), time_zone: fields.time_zone.trim() };
    return { name: fields.name, trigger, action, concurrency: fields.concurrency };
  },
  webhook(fields) {
    const target = fields.target.trim();
    const channel = target.includes("://") ? { kind: "webhook", url: target } : { kind: "email", to: target };
    return { channel, event_types: fields.event_types.split(/[\s,]+/).filter(Boolean), description: fields.description };
  },
};

async function send(form) {
  const fields = Object.fromEntries(new FormData(form));
  let body;
  try {
    body = BODIES[form.dataset.json](fields);
  } catch (error) {
    return `This is no JSON: ${error.message}`;
  }
  const headers = { "Content-Type": "application/json", accept: "application/json" };
  const response = await fetch(form.getAttribute("action"), { method: "POST", body: JSON.stringify(body), headers });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const lines = (answer.errors ?? []).map((error) => `${error.pointer}: ${error.message}`);
    return lines.join("; ") || answer.detail || `The server answered ${response.status}.`;
  }
  if (form.dataset.then) {
    window.location.assign(form.dataset.then + answer.id);
    return "Added.";
  }
  form.reset();
  return answer.secret ? `Added. Its secret, shown this once: ${answer.secret}` : "Added.";
}

document.addEventListener("submit", async (event) => {
  const form = event.target instanceof Element ? event.target.closest("form[data-json]") : null;
  if (!form) return;
  event.preventDefault();
  const told = form.querySelector("output");
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    told.textContent = await send(form);
  } catch {
    told.textContent = "The server cannot be reached.";
  } finally {
    button.disabled = false;
  }
});

for (const input of document.querySelectorAll("input[data-zone]")) {
  input.value = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}
