// Event streams that rest while nobody looks: a browser has few connections per host, and every open tab would hold some.

/**
 * Follows an event stream while the page is visible.
 *
 * The browser itself reconnects and says where it was. Where the stream cannot be had, `onState(false)` is told.
 *
 * @param {() => string} address of the stream, asked again at each connection
 * @param {Record<string, (event: MessageEvent) => void>} handlers by event type
 * @param {(isOpen: boolean) => void} onState
 */
export function follow(address, handlers, onState) {
  let source = null;
  let isOver = false;
  let retry = 0;

  const close = () => { source?.close(); source = null; };
  const open = () => {
    if (source || isOver || document.hidden) return;
    source = new EventSource(address());
    source.onopen = () => onState(true);
    source.onerror = () => {
      onState(false);
      if (source?.readyState === EventSource.CLOSED) {
        close();
        clearTimeout(retry);
        retry = setTimeout(open, 5000);
      }
    };
    for (const [type, handler] of Object.entries(handlers)) source.addEventListener(type, handler);
    source.addEventListener("end", () => { isOver = true; close(); onState(false); });
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
}
