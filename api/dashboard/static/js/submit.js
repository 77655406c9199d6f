// A document that is checked and submitted. What the server answers is only ever set as text.

const form = document.querySelector("form[data-document]");
const field = form.elements.document;
const told = form.querySelector("output");
const isClone = form.getAttribute("action").endsWith("/clone");
const original = isClone ? JSON.parse(field.defaultValue) : null;

const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isSame = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** The JSON Merge Patch (RFC 7396) that makes one document the other; lists are replaced whole. */
function patchOf(before, after) {
  const patch = {};
  for (const key of Object.keys(before)) if (!(key in after)) patch[key] = null;
  for (const [key, value] of Object.entries(after)) {
    if (isTable(value) && isTable(before[key])) {
      if (!isSame(before[key], value)) patch[key] = patchOf(before[key], value);
    } else if (!isSame(before[key], value)) patch[key] = value;
  }
  return patch;
}

/** Body and type of the request; throws where the text of a copy is no JSON object. */
function content() {
  const text = field.value;
  if (!isClone) return [text, text.trimStart().startsWith("{") ? "application/json" : "application/toml"];
  const edited = JSON.parse(text);
  if (!isTable(edited)) throw new SyntaxError("a document is an object");
  return [JSON.stringify(patchOf(original, edited)), "application/json"];
}

function fill(name, rows, aside = "") {
  const panel = form.querySelector(`[data-${name}]`);
  panel.hidden = rows.length === 0;
  panel.querySelector(".aside")?.replaceChildren(aside || panel.querySelector(".aside").textContent);
  panel.querySelector("tbody, ul").replaceChildren(...rows);
}

function row(cells, numbers = []) {
  const line = document.createElement("tr");
  cells.forEach((text, index) => {
    const cell = document.createElement(index === 0 ? "th" : "td");
    if (index === 0) cell.scope = "row";
    if (numbers.includes(index)) cell.className = "number";
    cell.textContent = text;
    line.append(cell);
  });
  return line;
}

function problem(pointer, message) {
  const item = document.createElement("li");
  const place = document.createElement("code");
  place.textContent = pointer || "the document";
  item.append(place, ` ${message}`);
  return item;
}

const shown = (value) => (value === null || value === undefined ? "nothing" : JSON.stringify(value));

function show(answer) {
  fill("changes", answer.changes.map((change) => row([change.pointer || "/", shown(change.before), shown(change.after)])));
  const jobs = answer.jobs.map((job) => row([job.name, job.kind, job.needs.join(", ") || "nothing", job.seeds.join(", "), String(job.num_reused)], [4]));
  fill("jobs", jobs, `${answer.num_jobs} jobs, ${answer.num_runs} runs, ${answer.num_reused} taken over`);
  told.textContent = isClone && !answer.changes.length ? "Nothing differs from the original. Not submitted." : "This would be accepted. Not submitted.";
}

async function send(isSubmission) {
  const [body, type] = content();
  const address = isSubmission ? form.getAttribute("action") : `${form.getAttribute("action")}/check`;
  const response = await fetch(address, { method: "POST", body, headers: { accept: "application/json", "content-type": type } });
  if (response.redirected || response.status === 401) return window.location.reload();
  const answer = await response.json().catch(() => ({}));
  const errors = response.ok ? [] : answer.errors?.length ? answer.errors : [{ pointer: "", message: answer.detail ?? `the server answered ${response.status}` }];
  fill("problems", errors.map((error) => problem(error.pointer, error.message)));
  if (!response.ok) {
    fill("changes", []);
    fill("jobs", []);
    told.textContent = "Not accepted, see below.";
  } else if (isSubmission) {
    told.textContent = "Submitted.";
    window.location.assign(`/experiments/${answer.id}`);
  } else show(answer);
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter;
  if (button) button.disabled = true;
  told.textContent = "Asking the server.";
  try {
    await send(button?.name === "submit");
  } catch (error) {
    const isSyntax = error instanceof SyntaxError;
    if (isSyntax) fill("problems", [problem("", `is no JSON: ${error.message}`)]);
    told.textContent = isSyntax ? "Not accepted, see below." : "The server cannot be reached.";
  } finally {
    if (button) button.disabled = false;
  }
});
