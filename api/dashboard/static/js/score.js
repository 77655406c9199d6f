// The form that has outputs graded: reads the file here and sends its rows. Text from the server is only ever set as text.

const form = document.querySelector("form[data-score]");

/** The rows of a file: a JSON list, or an object a line. */
function rowsOf(text) {
  if (text.trimStart().startsWith("[")) return JSON.parse(text);
  return text.split("\n").filter((line) => line.trim()).map((line, index) => {
    try {
      return JSON.parse(line);
    } catch {
      throw new SyntaxError(`line ${index + 1} is no JSON`);
    }
  });
}

async function send() {
  const { scoring, name, file } = form.elements;
  const rows = rowsOf(await file.files[0].text());
  const body = { name: name.value, scoring: { name: scoring.value, [scoring.selectedOptions[0].dataset.field]: rows } };
  const response = await fetch(form.getAttribute("action"), { method: "POST", body: JSON.stringify(body), headers: { accept: "application/json", "content-type": "application/json" } });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) {
    window.location.assign(`/jobs/${answer.id}`);
    return "Submitted.";
  }
  const errors = (answer.errors ?? []).slice(0, 3).map((error) => `${error.pointer}: ${error.message}`);
  return errors.join("; ") || answer.detail || `The server answered ${response.status}.`;
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = form.querySelector("output");
  const button = form.querySelector("button");
  button.disabled = true;
  told.textContent = "Sending.";
  try {
    told.textContent = await send();
  } catch (error) {
    told.textContent = error instanceof SyntaxError ? `The file cannot be read: ${error.message}.` : "The server cannot be reached.";
  } finally {
    button.disabled = false;
  }
});
