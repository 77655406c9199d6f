// The upload form sends its file as the body itself, typed by the file's suffix. Text from the server is only ever set as text.

const TYPES = { jsonl: "application/jsonl", ndjson: "application/jsonl", csv: "text/csv", parquet: "application/vnd.apache.parquet" };

async function send(form) {
  const file = form.elements.file.files[0];
  const type = TYPES[file.name.split(".").pop().toLowerCase()];
  if (!type) return "The file's name must end in .jsonl, .csv or .parquet.";
  const query = new URLSearchParams({ name: form.elements.name.value });
  const fields = form.elements.text_fields.value.trim();
  if (fields) query.set("text_fields", fields);
  const response = await fetch(`${form.getAttribute("action")}?${query}`, { method: "POST", body: file, headers: { "Content-Type": type } });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) {
    window.location.assign(`/datasets/${answer.id}`);
    return `${answer.num_rows} rows are ${answer.source}.`;
  }
  const rows = (answer.errors ?? []).map((error) => `${error.pointer.replace("/rows/", "row ")}: ${error.message}`);
  return rows.join("; ") || answer.detail || `The server answered ${response.status}.`;
}

document.addEventListener("submit", async (event) => {
  const form = event.target instanceof Element ? event.target.closest("form[data-upload]") : null;
  if (!form) return;
  event.preventDefault();
  const told = form.querySelector("output");
  const button = form.querySelector("button");
  button.disabled = true;
  told.textContent = "Uploading.";
  try {
    told.textContent = await send(form);
  } catch {
    told.textContent = "The server cannot be reached.";
  } finally {
    button.disabled = false;
  }
});
