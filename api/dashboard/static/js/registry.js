// Forms that name, keep and register: their fields become a path or a JSON body. Text from the server is only ever set as text.

const send = {
  async alias(form) {
    return call(`/v1/aliases/${encodeURIComponent(form.elements.name.value)}`, "PUT", { checkpoint: form.dataset.checkpoint });
  },
  async expiry(form) {
    const here = `/v1/checkpoints/${form.dataset.checkpoint}`;
    const now = await fetch(here, { headers: { accept: "application/json" }, cache: "no-store" });
    if (!now.ok) return now;
    const days = form.elements.days.value;
    return call(here, "PATCH", { expires_in_days: days ? Number(days) : null }, { "if-match": now.headers.get("etag") });
  },
  async model(form) {
    const hub = form.elements.hub_id.value.trim();
    const source = hub ? { kind: "hub", hub_id: hub, revision: form.elements.revision.value.trim() } : { kind: "local" };
    return call("/v1/models", "POST", { name: form.elements.name.value, source });
  },
};

function call(address, method, body, headers = {}) {
  return fetch(address, { method, body: JSON.stringify(body), headers: { accept: "application/json", "content-type": "application/json", ...headers } });
}

document.addEventListener("submit", async (event) => {
  const form = event.target instanceof Element ? event.target.closest("form[data-registry]") : null;
  if (!form) return;
  event.preventDefault();
  const told = form.querySelector("output");
  const button = form.querySelector("button");
  button.disabled = true;
  told.textContent = "";
  try {
    const response = await send[form.dataset.registry](form);
    if (response.redirected || response.status === 401 || response.ok) return window.location.reload();
    const problem = await response.json().catch(() => ({}));
    const places = (problem.errors ?? []).map((error) => `${error.pointer.split("/").pop()}: ${error.message}`);
    told.textContent = places.join("; ") || problem.detail || `The server answered ${response.status}.`;
  } catch {
    told.textContent = "The server cannot be reached.";
  } finally {
    button.disabled = false;
  }
});
