// Passkeys: asks the console what the browser shall ask for, has the device answer, and sends the answer back.
// A button with data-passkey="login" logs in; with "add" it makes a passkey. Without script it stays hidden.

const bytes = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

const known = (list) => (list ?? []).map((each) => ({ ...each, id: bytes(each.id) }));

function optionsOf(options, adding) {
  const decoded = { ...options, challenge: bytes(options.challenge) };
  if (!adding) return { ...decoded, allowCredentials: known(options.allowCredentials) };
  return {
    ...decoded,
    user: { ...options.user, id: bytes(options.user.id) },
    excludeCredentials: known(options.excludeCredentials),
  };
}

function answerOf(credential) {
  const given = credential.response;
  const response = { clientDataJSON: text(given.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"])
    if (given[name]) response[name] = text(given[name]);
  if (given.getTransports) response.transports = given.getTransports();
  return JSON.stringify({
    id: credential.id,
    rawId: text(credential.rawId),
    type: credential.type,
    response,
    clientExtensionResults: credential.getClientExtensionResults(),
  });
}

/** Return what the console answers, or throw its problem. */
async function ask(address, fields) {
  const answer = await fetch(address, {
    method: fields ? "POST" : "GET",
    body: fields && new URLSearchParams(fields),
    headers: { accept: "application/json" },
  });
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.problem ?? found.detail ?? `The console answers ${answer.status}.`);
  return found;
}

const REASONS = {
  InvalidStateError: "This device has a passkey for this console already.",
  NotAllowedError: "That was cancelled, took too long, or this device has no passkey for this console.",
  NotSupportedError: "This device cannot make such a passkey.",
  SecurityError: "The browser keeps no passkey for this address: use https, or localhost.",
};

async function run(button) {
  const { passkey, address, next = "/", csrf } = button.dataset;
  const adding = passkey === "add";
  const token = csrf ? { csrf } : {};
  const begun = await ask(address, adding ? { step: "begin", ...token } : null);
  const publicKey = optionsOf(begun.options, adding);
  const credential = await navigator.credentials[adding ? "create" : "get"]({ publicKey });
  const label = document.getElementById("label")?.value ?? "";
  const fields = { id: begun.id, answer: answerOf(credential), ...token };
  const done = await ask(address, adding ? { step: "finish", label, ...fields } : { next, ...fields });
  const target = new URL(done.next, location.href);
  if (target.pathname + target.search === location.pathname + location.search) {
    history.replaceState(null, "", target);
    location.reload();
  } else location.assign(target);
}

for (const button of document.querySelectorAll("[data-passkey]")) {
  const problem = document.getElementById("passkey-problem");
  button.hidden = !window.PublicKeyCredential;
  if (button.hidden) {
    problem.textContent = "This browser has no passkeys at this address: it needs https, or localhost.";
    problem.hidden = false;
  }
  button.form?.addEventListener("submit", (event) => {
    event.preventDefault();
    button.click();
  });
  button.addEventListener("click", async () => {
    button.disabled = true;
    problem.hidden = true;
    try {
      await run(button);
    } catch (error) {
      problem.textContent = REASONS[error.name] ?? error.message;
      problem.hidden = false;
      button.disabled = false;
      button.focus();
    }
  });
}
