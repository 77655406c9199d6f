// What every page does: keep its live part fresh, tell relative times, copy, post actions. Text from the server is only ever set as text.

import { agoText } from "./words.js";

const region = () => document.querySelector("#live[data-every]");
let lastRefresh = Date.now();
let failures = 0;

/** Asks htmx to fetch this page again and to morph its live part in place. */
function refresh() {
  const live = document.querySelector("#live");
  if (!live || !window.htmx) return;
  lastRefresh = Date.now();
  window.htmx.trigger(live, "refresh");
}

function isDue() {
  const live = region();
  if (!live || document.hidden) return false;
  const seconds = Number(live.dataset.every) * Math.min(2 ** failures, 8);
  return Date.now() - lastRefresh >= seconds * 1000;
}

setInterval(() => { if (isDue()) refresh(); }, 500);
document.addEventListener("visibilitychange", () => { if (isDue()) refresh(); });

document.addEventListener("htmx:before:response", (event) => {
  const response = event.detail.ctx?.response?.raw;
  if (response?.redirected) {
    event.preventDefault();
    window.location.reload(); // the session ended: the whole page goes to the sign-in
  }
});
document.addEventListener("htmx:after:request", (event) => {
  const status = event.detail.ctx?.response?.status ?? 0;
  connected(status > 0 && status < 500);
});
document.addEventListener("htmx:error", () => connected(false));
document.addEventListener("htmx:after:swap", tellTimes);

function connected(isUp) {
  failures = isUp ? 0 : failures + 1;
  const light = document.querySelector("#connection");
  if (light) light.hidden = failures < 2;
}

/** Writes "3 min ago" into every <time data-ago>, whose datetime is exact. */
function tellTimes() {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const text = agoText(element.getAttribute("datetime"));
    if (element.textContent !== text) element.textContent = text;
  }
}
setInterval(tellTimes, 5000);
tellTimes();

/** An open <details> is left alone by the morphing refresh, so that it stays open. */
document.addEventListener("toggle", (event) => {
  if (event.target instanceof HTMLDetailsElement) event.target.toggleAttribute("hx-morph-skip", event.target.open);
}, true);

function toast(text, isBad) {
  document.querySelector(".toast")?.remove();
  const box = document.createElement("div");
  box.className = isBad ? "toast bad" : "toast";
  box.setAttribute("role", "status");
  box.textContent = text;
  document.body.append(box);
  setTimeout(() => box.remove(), isBad ? 8000 : 3000);
}

/** A button that changes something asks once more, on itself, before it does. */
function isConfirmed(button) {
  const question = button.dataset.confirm;
  if (!question || button.classList.contains("sure")) return true;
  const before = button.textContent;
  button.textContent = question;
  button.classList.add("sure");
  button.setAttribute("hx-morph-skip", "");
  setTimeout(() => {
    button.textContent = before;
    button.classList.remove("sure");
    button.removeAttribute("hx-morph-skip");
  }, 4000);
  return false;
}

async function post(button) {
  let isLeaving = false;
  button.disabled = true;
  try {
    const { post: address, method = "POST", body, next, secret } = button.dataset;
    const headers = { accept: "application/json", ...(body && { "content-type": "application/json" }) };
    const response = await fetch(address, { method, headers, body });
    if (response.redirected || response.status === 401) return window.location.reload();
    isLeaving = response.ok && Boolean(next);
    if (isLeaving) return window.location.assign(next);
    if (response.ok && secret) {
      const place = document.querySelector(secret);
      place.textContent = `The new secret, shown this once: ${(await response.json()).secret}`;
      place.hidden = false;
    } else if (response.ok) {
      toast(button.dataset.done ?? "Done.", false);
    } else {
      const problem = await response.json().catch(() => ({}));
      toast(problem.detail || problem.title || `The server answered ${response.status}.`, true);
    }
  } catch {
    toast("The server cannot be reached.", true);
  } finally {
    button.disabled = isLeaving;
    if (!isLeaving) refresh();
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-post], button[data-copy], button[data-copy-from]") : null;
  if (!button) return;
  if (button.dataset.post) {
    if (isConfirmed(button)) await post(button);
    return;
  }
  try {
    await navigator.clipboard.writeText(button.dataset.copy ?? document.getElementById(button.dataset.copyFrom).textContent);
    toast("Copied.", false);
  } catch {
    toast("This browser does not allow copying here.", true);
  }
});

document.addEventListener("change", (event) => {
  if (event.target instanceof HTMLSelectElement) event.target.closest("form[data-auto]")?.requestSubmit();
});
