// The tail of a run's log. What a process printed is shown as text and as nothing else.

import { follow } from "./streams.js";

const MOST_CHARACTERS = 400_000;
const FIRST_PIECES = 200;
const MOST_HITS = 2000;
// Colours and cursor movements of terminals.
const ESCAPES = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b[@-_]/g;

/** What a terminal would show: no escape sequences, and of a line that was written over, the last version. */
function shown(text) {
  return text.replace(ESCAPES, "").replaceAll("\r\n", "\n").replace(/[^\n]*\r(?!$)/gm, "");
}

class Log {
  constructor(root) {
    this.root = root;
    this.box = root.querySelector("pre[role=log]");
    this.found = root.querySelector(".found");
    this.told = root.querySelector("output");
    this.field = root.querySelector("input");
    this.light = root.querySelector(".live");
    this.size = 0;
    this.cursor = "";
    this.seen = new Set();
    this.isEmpty = true;
  }

  /** Appends a piece of the log, if it is not one that was shown. */
  take(piece) {
    if (this.seen.has(piece.cursor)) return;
    this.seen.add(piece.cursor);
    this.cursor = piece.cursor;
    this.append(piece.text);
  }

  append(text) {
    if (!text) return;
    const isAtEnd = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 24;
    if (this.isEmpty) { this.box.replaceChildren(); this.isEmpty = false; }
    this.box.append(document.createTextNode(shown(text)));
    this.size += text.length;
    while (this.size > MOST_CHARACTERS && this.box.childNodes.length > 1) {
      this.size -= this.box.firstChild.data.length;
      this.box.firstChild.remove();
    }
    if (isAtEnd) this.box.scrollTop = this.box.scrollHeight;
    if (this.field?.value) this.search();
  }

  /** Shows the lines that hold what was typed, with their numbers; the whole log again where nothing is. */
  search() {
    const wanted = this.field.value.toLowerCase();
    const lines = wanted ? this.box.textContent.split("\n") : [];
    const hits = lines.flatMap((line, index) => (line.toLowerCase().includes(wanted) ? [`${String(index + 1).padStart(6)}  ${line}`] : []));
    this.box.hidden = Boolean(wanted);
    this.found.hidden = !wanted;
    this.found.textContent = hits.slice(0, MOST_HITS).join("\n");
    this.told.textContent = wanted ? `${hits.length} of ${lines.length} lines` : "";
  }

  /** The last pieces first, then the stream from there on while the run goes on. */
  async start() {
    this.field?.addEventListener("input", () => this.search());
    try {
      const response = await fetch(`${this.root.dataset.log}?tail=${FIRST_PIECES}`, { headers: { accept: "application/json" } });
      for (const piece of (await response.json()).data ?? []) this.take(piece);
    } catch {
      this.light?.classList.add("off");
    }
    this.box.scrollTop = this.box.scrollHeight;
    if (this.root.dataset.live !== "true") return;
    const address = () => `${this.root.dataset.log}/stream${this.cursor ? `?after=${this.cursor}` : ""}`;
    follow(address, { log: (event) => this.take(JSON.parse(event.data)) }, (isOpen) => {
      if (!this.light) return;
      this.light.hidden = false;
      this.light.classList.toggle("on", isOpen);
      this.light.textContent = isOpen ? "live" : "not live";
    });
  }
}

for (const root of document.querySelectorAll("[data-log]")) new Log(root).start();
