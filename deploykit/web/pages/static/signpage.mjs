// The pages on which people sign and enrol keys: what is drawn, pressed, and carried between two origins.
//
// - data-sign="here": the console's own page; "elsewhere": it links to the page of web.sign_origin, and picks up what
//   comes back; "alone": that page; "enrol", "enrolled" and "alone" do the same for new keys.
// - Between the origins all goes in the fragment, which no browser sends to a server. What comes in it is hostile.

import {
  Refusal, enrol, fingerprintOf, fromBase64, purposeOf, readMandate, rowsOf, sign, signedBytes, visible,
} from "./sign.mjs";

const page = document.querySelector("[data-sign]");
const part = (name) => page.querySelector(`[data-part="${name}"]`);
const fragment = () => new URLSearchParams(location.hash.slice(1));
const NAME = /^[A-Za-z0-9@._*?:/+-]{1,255}$/, SITES = /^(?!.{101})[A-Za-z0-9_.*?-]+(?:,[A-Za-z0-9_.*?-]+)*$/;

function say(words, bad = false) {
  const status = part("status");
  status.textContent = words;
  status.classList.toggle("bad", bad);
}

/** Return in words why something failed: ours, or the browser's by the names that the standard gives. */
function why(error) {
  if (error instanceof Refusal) return error.message;
  const words = {
    NotAllowedError: "Nothing was signed: it was cancelled, it took too long, or no passkey for signing is at hand.",
    SecurityError: `This page, ${location.origin}, may not use passkeys of that web site: open it under its proper name.`,
    InvalidStateError: "That passkey exists already.",
    NotSupportedError: "This browser or key cannot make such a passkey (ES256, with a PIN or a finger).",
  };
  return words[error.name] ?? `It failed: ${visible(String(error))}`;
}

/** Run what a press asks for, once at a time, and say how it failed. */
function onPress(button, words, work) {
  button.textContent = words;
  button.hidden = false;
  button.onclick = async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      say(why(error), true);
    } finally {
      button.disabled = false;
    }
  };
}

const keysOf = (words) => words.split(",").filter(Boolean).map((pair) => {
  const [id, key] = pair.split(".");
  return { id, key: key ?? "" };
});

function canSign() {
  if (window.top !== window) say("This page is inside another one, so nothing is signed here.", true);
  else if (!window.PublicKeyCredential) say("There are no passkeys here: the page needs https, or the name localhost.", true);
  else return true;
  return false;
}

// -- a mandate -----------------------------------------------------------------------------------------------------

function draw(mandate) {
  const list = document.createElement("dl");
  list.className = "mandate";
  for (const [label, words, warns] of rowsOf(mandate)) {
    const [term, said] = ["dt", "dd"].map((name) => document.createElement(name));
    term.textContent = label;
    said.textContent = words;
    if (warns) said.className = "bad";
    if (words.length > 500) { said.classList.add("long"); said.tabIndex = 0; }
    list.append(term, said);
  }
  part("said").replaceChildren(list);
}

/** Show the mandate in bytes and let it be signed; `done` gets the signature and the mandate. */
async function offer(words, keys, rpId, done) {
  let mandate, body;
  try {
    body = fromBase64(words);
    mandate = readMandate(body);
  } catch (error) {
    part("said").replaceChildren();
    return say(`This is not offered for signing: ${why(error)}.`, true);
  }
  draw(mandate);
  if (Date.now() > mandate.ends) return say("Its time is over: have it proposed again.", true);
  if (!keys.length) return say("No passkey of yours is enrolled for signing.", true);
  if (!canSign()) return;
  const challenge = await signedBytes(body);
  onPress(part("press"), purposeOf(mandate), async () => {
    say("Your browser asks for your passkey.");
    const signature = await sign({ challenge, rpId, keys });
    say("Signed.");
    done(signature, mandate);
  });
}

function post(field, value) {
  const form = part("form");
  form.elements[field].value = value;
  form.submit();
}

/** Pick up what the page of the other origin gave; at once only where this tab went there for it. */
function pickUp(field, went, words) {
  const link = part("link");
  link?.addEventListener("click", () => sessionStorage.setItem(went, "1"));
  const value = fragment().get(field);
  if (!value) return;
  page.hidden = false;
  history.replaceState(null, "", location.pathname + location.search);
  const asked = sessionStorage.getItem(went) !== null;
  sessionStorage.removeItem(went);
  if (asked) return post(field, value);
  say(words);
  onPress(part("press"), "Take it over", () => post(field, value));
}

// -- a key ---------------------------------------------------------------------------------------------------------

function offerKey({ challenge, sites, who, principal }, rpId, done) {
  if (!canSign()) return;
  onPress(part("press"), `Make a passkey that signs for ${sites}`, async () => {
    say("Your browser asks where the passkey is to be kept.");
    const made = await enrol({ challenge, rpId, sites, who, principal });
    say(`Made. Its fingerprint is ${await fingerprintOf(made.blob)}`);
    done(made);
  });
}

// -- the page of an origin of its own ------------------------------------------------------------------------------

function alone() {
  const asked = fragment(), home = page.dataset.console, rpId = location.hostname;
  part("press").hidden = part("result").hidden = true;
  const result = (words, address) => {
    part("value").value = words;
    part("back").href = address;
    part("result").hidden = false;
  };
  if (asked.has("mandate")) {
    document.title = part("title").textContent = "Sign a rollout";
    return offer(asked.get("mandate"), keysOf(asked.get("keys") ?? ""), rpId, (signature, { rollout }) => {
      const address = `${home}/deploys/${encodeURIComponent(rollout)}/approve#${new URLSearchParams({ signature })}`;
      result(signature, address);
      location.assign(address);
    });
  }
  if (asked.has("enrol")) {
    document.title = part("title").textContent = "A passkey that signs";
    const [challenge, sites, who, principal] = ["enrol", "sites", "who", "principal"].map((name) => asked.get(name) ?? "");
    if (!SITES.test(sites) || !NAME.test(principal)) return say("Part of the address is damaged.", true);
    say(`It will release ${sites}, for ${visible(who, 60)}.`);
    return offerKey({ challenge, sites, who, principal }, rpId, ({ line, registration }) => {
      result(line, `${home}/account/signing#${new URLSearchParams({ registration })}`);
    });
  }
  say(`There is nothing to sign. The console ${home} leads here when there is.`);
}

if (page) {
  const { sign: mode, mandate = "", keys = "", rp = "" } = page.dataset;
  if (mode === "here") offer(mandate, keysOf(keys), rp, (signature) => post("signature", signature));
  if (mode === "elsewhere") pickUp("signature", `sign ${page.dataset.rollout}`, "A signature came with this address.");
  if (mode === "enrol") offerKey(page.dataset, rp, ({ registration }) => post("registration", registration));
  if (mode === "enrol-elsewhere") part("link").onclick = () => sessionStorage.setItem("enrol", "1");
  if (mode === "enrolled") pickUp("registration", "enrol", "A new key came with this address.");
  if (mode === "alone") {
    alone();
    addEventListener("hashchange", () => location.reload());
  }
}
