"use strict";
// Everything a model wrote reaches the page through textContent.
const records = JSON.parse(document.getElementById("records").textContent);
const form = document.getElementById("filters");
const list = document.getElementById("completions");
const count = document.getElementById("count");
const more = document.getElementById("more");
const BATCH = 50;
const FILTERS = [["verdict", "Verdict"], ["benchmark", "Benchmark"], ["decoding", "Decoding"], ["eval_seed", "Eval seed"]];
const SHOWN = [["prompt", "Prompt"], ["completion", "Completion"], ["reference", "Reference"], ["extracted", "Extracted"], ["reason", "Reason"]];
let found = records;
let shown = 0;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function field(title, control) {
  const label = element("label", title);
  label.append(control);
  form.append(label);
}

for (const [name, title] of FILTERS) {
  const values = [...new Set(records.map((record) => record[name]))];
  if (values.length < 2) continue;
  const select = element("select");
  select.name = name;
  select.append(new Option("all", ""));
  for (const value of values) {
    const number = records.filter((record) => record[name] === value).length;
    select.append(new Option(`${value === null ? "none" : value} (${number})`, String(value)));
  }
  field(title, select);
}
const search = element("input");
search.type = "search";
search.name = "text";
field("Text", search);

function card(record) {
  const article = element("article");
  const header = element("header");
  header.append(element("span", record.verdict, `verdict ${record.verdict}`));
  header.append(element("span", record.example_id));
  header.append(element("span", `${record.benchmark} ${record.decoding}`));
  if (record.eval_seed !== null) header.append(element("span", `seed ${record.eval_seed}`));
  if (record.sample_index) header.append(element("span", `sample ${record.sample_index}`));
  if (record.value !== null && record.value !== undefined) header.append(element("span", `value ${+record.value.toPrecision(4)}`));
  if (record.truncated) header.append(element("span", "truncated"));
  article.append(header);
  const body = element("dl");
  for (const [name, title] of SHOWN) {
    if (record[name] === null || record[name] === undefined || record[name] === "") continue;
    body.append(element("dt", title));
    const cell = element("dd");
    cell.append(element("pre", record[name]));
    body.append(cell);
  }
  article.append(body);
  return article;
}

function extend() {
  for (const record of found.slice(shown, shown + BATCH)) list.append(card(record));
  shown = Math.min(found.length, shown + BATCH);
  more.hidden = shown === found.length;
}

function apply() {
  const wanted = new FormData(form);
  const text = wanted.get("text").toLowerCase();
  found = records.filter((record) =>
    FILTERS.every(([name]) => !wanted.get(name) || String(record[name]) === wanted.get(name)) &&
    (!text || [record.example_id, ...SHOWN.map(([name]) => record[name])].some((part) => part && part.toLowerCase().includes(text))));
  list.replaceChildren();
  shown = 0;
  count.textContent = `${found.length} of ${records.length} completions`;
  extend();
}

form.addEventListener("input", apply);
form.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", extend);
apply();
