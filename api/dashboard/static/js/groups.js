// The places of charts: one grid a group of metrics, in the order and with the words that the page has in its list of metrics.

const OTHER = "Other";

export class Groups {
  /** @param {HTMLElement} root the panel, which holds the list and the element for the curves */
  constructor(root) {
    this.box = root.querySelector(".curves");
    this.notes = new Map();
    for (const term of root.querySelectorAll("[data-metrics] dt")) {
      this.notes.set(term.dataset.key, { group: term.dataset.group, text: term.nextElementSibling.textContent });
    }
    this.order = [...new Set([...this.notes.values()].map((note) => note.group).filter(Boolean)), OTHER];
    this.grids = new Map();
  }

  /** One line about a metric; empty where nothing is known of it. */
  note(key) {
    return this.notes.get(key)?.text ?? "";
  }

  /** The grid that a metric's chart belongs into. */
  grid(key) {
    const name = this.notes.get(key)?.group || OTHER;
    if (!this.grids.has(name)) {
      const section = document.createElement("section");
      const title = document.createElement("h3");
      const grid = document.createElement("div");
      section.className = "curve-group";
      grid.className = "curve-grid";
      title.textContent = name;
      section.append(title, grid);
      this.grids.set(name, grid);
      for (const one of this.order) if (this.grids.has(one)) this.box.append(this.grids.get(one).parentElement);
    }
    return this.grids.get(name);
  }
}
