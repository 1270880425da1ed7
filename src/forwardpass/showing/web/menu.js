// Menu: a button, and what it opens below it; Esc, or a focus elsewhere, closes it.
import { html, useEffect, useRef, useState } from "fwd/dom.js";

/** @param {{kind: string, label: string, face: any, children: (close: () => void) => any}} given */
export function Menu({ kind, label, face, children }) {
  const [open, setOpen] = useState(false);
  const whole = useRef(/** @type {HTMLElement | null} */ (null));
  const close = () => {
    setOpen(false);
    whole.current?.querySelector("button")?.focus();
  };
  useEffect(() => {
    if (!open) return;
    const outside = (/** @type {Event} */ event) => {
      if (!whole.current?.contains(/** @type {Node} */ (event.target))) setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    document.addEventListener("focusin", outside);
    return () => {
      document.removeEventListener("pointerdown", outside);
      document.removeEventListener("focusin", outside);
    };
  }, [open]);
  const pressed = (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape" || !open) return;
    event.preventDefault();
    close();
  };
  return html`<div class="opens" ref=${whole} onKeyDown=${pressed}>
    <button class="pick ${kind}" aria-expanded=${open} aria-label=${label} onClick=${() => setOpen(!open)}>${face}</button>
    ${open && html`<div class="menu" role="group" aria-label=${label}>${children(close)}</div>`}</div>`;
}
