// Ends the waiting for an answer: a button, and the key Esc.
import { html, useLayoutEffect } from "fwd/dom.js";

/** `kind`: how the button looks. @param {{stop: () => void, kind?: "btn" | "link"}} given */
export function Cancel({ stop, kind = "btn" }) {
  useLayoutEffect(() => { // who sees the button may press the key
    const pressed = (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape" && !event.defaultPrevented) stop();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  });
  return html`<button class=${kind} onClick=${stop}>Cancel <kbd>Esc</kbd></button>`;
}
