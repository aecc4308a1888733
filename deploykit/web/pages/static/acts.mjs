// What pages on which something is done have beyond the console's script; they work without either.
//
// - The focus goes to what came of an action, to what is wrong, or to the plan: a screen reader begins there.
// - A form is sent once, however often its button is pressed.
// - Who looks at such a page is seen by the others for as long as it is open.

const SEEN = 40_000; // others see somebody for 90 s

function focusFirst() {
  const wrong = document.querySelector("[aria-invalid=true]");
  const first = document.querySelector("[data-focus]");
  (wrong ?? first)?.focus({ preventScroll: Boolean(location.hash) && !wrong });
}

function sendOnce() {
  addEventListener("submit", (event) => {
    const button = event.submitter ?? event.target.querySelector("button");
    if (event.target.dataset.sent) return event.preventDefault();
    event.target.dataset.sent = "yes";
    if (!button?.dataset.busy) return;
    button.setAttribute("aria-busy", "true");
    button.dataset.words = button.textContent;
    (button.querySelector("span") ?? button).textContent = button.dataset.busy;
  });
  addEventListener("pageshow", ({ persisted }) => { // back to a page that the browser has kept
    if (persisted) location.reload();
  });
}

function offerCopies() {
  for (const button of document.querySelectorAll("[data-copy]")) {
    const text = document.getElementById(button.dataset.copy);
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        button.textContent = "Copied";
      } catch { // no clipboard without a secure connection: it is marked instead
        getSelection().selectAllChildren(text);
        button.textContent = "Marked";
      }
    });
  }
}

function stayHere() {
  if (!document.getElementById("here")) return;
  setInterval(() => document.dispatchEvent(new Event("deploykit:refresh")), SEEN);
}

focusFirst();
sendOnce();
offerCopies();
stayHere();
