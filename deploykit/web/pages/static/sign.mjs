// Signing with a passkey: reads a mandate's bytes itself, shows them, and has the passkey sign exactly them.
//
// - Nothing that a server says about a mandate is shown here: every word comes from the bytes that are signed.
// - What it does not understand it does not offer: an unknown field, a name that stands twice, bytes in another form.
// - A signature is an SSHSIG as `ssh-keygen -Y sign -n deploykit` makes it. It is verified here before it goes anywhere.
// - Text comes into the page as textContent only. The module asks no server for anything.
// - The same file is served by the console, and by the page of web.sign_origin, which the console cannot change.

/** Why something is not signed, in words for a person. */
export class Refusal extends Error {}

// -- bytes ---------------------------------------------------------------------------------------------------------

const bytesOf = (text) => new TextEncoder().encode(text);
const digest = async (name, bytes) => new Uint8Array(await crypto.subtle.digest(name, bytes));

export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

export const toBase64Url = (bytes) => toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

/** Return the bytes of base64 in either alphabet. */
export function fromBase64(text) {
  try {
    return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
  } catch {
    throw new Refusal("Part of the address is damaged.");
  }
}

function joined(...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) { all.set(part, at); at += part.length; }
  return all;
}

/** Return bytes, or a text, with the length before it (RFC 4251). */
function sized(data) {
  const bytes = typeof data === "string" ? bytesOf(data) : data, length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, bytes.length);
  return joined(length, bytes);
}

const same = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);

// -- what a mandate says -------------------------------------------------------------------------------------------

const LONGEST = 1 << 20, MOST_NODES = 10_000, MOST_PARTS = 32;
const FORWARD = ["deploy", "prepare", "activate"];
const NAME = /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?$/;
const REPO = /^[A-Za-z0-9_][A-Za-z0-9_.+-]*(?:\/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$/;
const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu; // what Python's isprintable() refuses
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z$/;

const text = (value) => typeof value === "string";
const flag = (value) => typeof value === "boolean";
const identifier = (value) => text(value) && value !== "" && [...value].length <= 255 && value.search(HIDDEN) < 0;
const name = (value) => text(value) && value.length <= 255 && NAME.test(value);
const repoName = (value) => text(value) && value.length <= 255 && REPO.test(value);
const time = (value) => text(value) && TIME.test(value) && !isNaN(Date.parse(value));
const list = (value, most, each) => Array.isArray(value) && value.length <= most && value.every(each);
const refName = (value) => text(value) && value.startsWith("refs/") && value.length <= 1024 && value.search(HIDDEN) < 0;
const commitId = (value) => text(value) && /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(value);

const PART = { repo: repoName, ref: refName, commit: commitId };
const isPart = (value) => Boolean(fieldsOf(value, PART));
const MAY_LACK = ["correlationid", "parts"];

/** The fields in the order in which deploykit writes them: what each may be, and whether it may be absent. */
const ENVELOPE = {
  specversion: (value) => value === "1.0", id: identifier, source: identifier,
  type: (value) => value === "deploykit.rollout.approved.v1", time, correlationid: identifier,
  datacontenttype: (value) => value === "application/json", data: (value) => typeof value === "object",
};
const DATA = {
  site: name, rollout: identifier, ref: (value) => value === null || refName(value),
  commit: (value) => value === null || commitId(value), parts: (value) => list(value, MOST_PARTS, isPart), nodes: (value) => list(value, MOST_NODES, name),
  phases: (value) => list(value, 10, text), allow_rollback: flag, not_before: time, not_after: time,
  without_build: flag, override_lock: text, requested_by: text, reason: text,
};

function fieldsOf(value, table) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) throw new Refusal("it is no message");
  const unknown = Object.keys(value).filter((key) => !Object.hasOwn(table, key));
  if (unknown.length) throw new Refusal(`it has fields that this page does not know: ${visible(unknown.join(", "))}`);
  const found = {};
  for (const [key, good] of Object.entries(table)) {
    if (!Object.hasOwn(value, key) && MAY_LACK.includes(key)) continue;
    if (!Object.hasOwn(value, key) || !good(value[key])) throw new Refusal(`its ${key} is not what it should be`);
    found[key] = value[key];
  }
  return found;
}

/** Return what a mandate's bytes say, or throw the Refusal of one that nobody should sign. */
export function readMandate(bytes) {
  let body, value;
  if (bytes.length > LONGEST) throw new Refusal("it is too long to be a mandate");
  try {
    body = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(body);
  } catch {
    throw new Refusal("it is no message");
  }
  const message = fieldsOf(value, ENVELOPE);
  const said = (message.data = fieldsOf(message.data, DATA));
  if (said.parts) said.parts = said.parts.map((part) => fieldsOf(part, PART));
  // One text has one meaning: this finds names that stand twice, another order, blanks, other escapes.
  if (JSON.stringify(message) !== body) throw new Refusal("its bytes are not those that deploykit writes for what it says");
  const odd = said.phases.find((phase) => !FORWARD.includes(phase));
  if (odd !== undefined) throw new Refusal(`it names the phase ${visible(odd)}`);
  if (!said.parts) {
    if ((said.ref === null) !== (said.commit === null)) throw new Refusal("it names no whole release");
  } else if (!said.parts.length || said.ref !== null || said.commit === null) {
    throw new Refusal("it names another release beside its parts");
  } else if (said.parts.some(({ repo }, at) => at && said.parts[at - 1].repo >= repo)) {
    throw new Refusal("it does not name each repository once, by name");
  }
  if (said.phases.length && said.commit === null) throw new Refusal("it names no whole release");
  if (!said.phases.length && !said.allow_rollback) throw new Refusal("it allows nothing");
  if (!said.nodes.length) throw new Refusal("it names no node");
  if (new Set(said.nodes).size !== said.nodes.length) throw new Refusal("it names a node twice");
  const begins = Date.parse(said.not_before), ends = Date.parse(said.not_after);
  if (ends < begins) throw new Refusal("it ends before it begins");
  return Object.freeze({ ...said, source: message.source, made: message.time, begins, ends });
}

/** Return a text with what cannot be seen, or turns a line round, written out; cut. */
export function visible(value, most = 300) {
  const shown = [...value].slice(0, most).join("").replace(HIDDEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
  return [...value].length > most ? `${shown}… (${[...value].length} characters)` : shown;
}

/** Return a text that decides something, whole: with its escapes where a letter could be taken for another. */
export function exact(value) {
  const ascii = value.replace(/[^\x20-\x7e]/gu, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
  return ascii === value ? value : `${visible(value, 1024)}, written ${ascii}`;
}

const counted = (nodes) => (nodes.length === 1 ? "1 node" : `${nodes.length} nodes`);

function times(iso) {
  const date = new Date(iso), utc = `${date.toISOString().slice(0, 19).replace("T", " ")} UTC`;
  return date.getTimezoneOffset() ? `${utc} (${date.toLocaleString(undefined, { timeStyle: "long", dateStyle: "medium" })})` : utc;
}

/** Return a mandate as rows for a person: label, text, and whether it warns. */
export function rowsOf(mandate, now = Date.now()) {
  const rows = [["Site", mandate.site]];
  if (mandate.commit === null) rows.push(["Release", "none: nodes may only go back"]);
  else if (mandate.parts) {
    for (const { repo, ref, commit } of mandate.parts) rows.push([`Of ${repo}`, `${exact(ref)}, ${commit}`]);
    rows.push(["Id of all", mandate.commit]);
  } else rows.push(["Ref", exact(mandate.ref)], ["Commit", mandate.commit]);
  rows.push([counted(mandate.nodes), mandate.nodes.join(", ")]);
  rows.push(["Phases", mandate.phases.join(", ") || "none"]);
  rows.push(["Way back", mandate.allow_rollback ? "each node may be told to go back to its own previous release" : "no"]);
  rows.push(["From", times(mandate.not_before) + (now < mandate.begins ? ", not yet" : "")]);
  rows.push(["Until", times(mandate.not_after) + (now > mandate.ends ? ", OVER" : ""), now > mandate.ends]);
  if (mandate.without_build) rows.push(["Builds", "MAY BE LEFT OUT: the site's required builds need not have succeeded", true]);
  if (mandate.override_lock) rows.push(["Lock", `IS OVERRIDDEN, for this reason: ${visible(mandate.override_lock)}`, true]);
  rows.push(["Rollout", exact(mandate.rollout)]);
  rows.push(["Says", `requested by ${visible(mandate.requested_by) || "nobody"}${mandate.reason ? `: ${visible(mandate.reason)}` : ""}`]);
  rows.push(["Made", `by ${visible(mandate.source)} at ${times(mandate.made)}; nobody has checked this line and the one above`]);
  return rows;
}

/** Return in a few words what a signature lets happen: on the button. */
export function purposeOf({ site, ref, parts, nodes, phases }) {
  const where = `${counted(nodes)} of ${site}`;
  if (!phases.length) return `Sign: ${where} may go back`;
  const refs = parts ? parts.map((part) => part.ref) : [ref];
  return `Sign: ${refs.map((each) => exact(each.replace(/^refs\/(?:tags|heads)\//, ""))).join("+")} on ${where}`;
}

// -- keys and signatures -------------------------------------------------------------------------------------------

const KEY = "sk-ecdsa-sha2-nistp256@openssh.com", KIND = `webauthn-${KEY}`;
const PRESENT = 0x01, VERIFIED = 0x04, ATTESTED = 0x40, EXTENDED = 0x80;

/** Return the bytes that a key signs for a body; a passkey's challenge. */
export async function signedBytes(body) {
  return joined(bytesOf("SSHSIG"), sized("deploykit"), sized(""), sized("sha512"), sized(await digest("SHA-512", body)));
}

/** Return the blob of a passkey's public key: 65 bytes of a point of P-256, and the site for which it was made. */
export const keyBlob = (point, rpId) => joined(sized(KEY), sized("nistp256"), sized(point), sized(rpId));

/** Return the point in such a blob. */
const pointOf = (blob) => blob.slice(54, 119); // after "sk-ecdsa…", "nistp256", and three lengths

/** Return a key's name as OpenSSH prints it. */
export const fingerprintOf = async (blob) => `SHA256:${toBase64(await digest("SHA-256", blob)).replace(/=+$/, "")}`;

/** Return r and s of a signature in DER, each as a positive number of its one form. */
export function numbersOf(der) {
  const found = [], wrong = new Refusal("The passkey answered with something that is no signature.");
  let at = 2;
  if (der[0] !== 0x30 || der[1] !== der.length - 2) throw wrong;
  while (at < der.length) {
    const end = at + 2 + der[at + 1];
    if (der[at] !== 2 || end > der.length || end < at + 3) throw wrong;
    let number = der.slice(at + 2, end);
    while (number.length > 1 && number[0] === 0) number = number.slice(1);
    if (number.length > 32 || (number.length === 1 && number[0] === 0)) throw wrong;
    found.push(number[0] & 0x80 ? joined([0], number) : number);
    at = end;
  }
  if (found.length !== 2) throw wrong;
  return found;
}

/** Return whether a signature is by the key of a blob. */
async function isBy(blob, numbers, signed) {
  const kind = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const plain = joined(...numbers.map((number) => joined(new Uint8Array(32), number).slice(-32)));
  try {
    const key = await crypto.subtle.importKey("raw", pointOf(blob), kind, false, ["verify"]);
    return await crypto.subtle.verify(kind, key, plain, signed);
  } catch {
    return false;
  }
}

/** Return the SSHSIG, in base64, of what a passkey answered; `keys` are blobs of which one is that passkey's. */
export async function signatureOf(response, { challenge, origin, rpId, keys }) {
  const data = new Uint8Array(response.authenticatorData), client = new Uint8Array(response.clientDataJSON);
  const flags = data[32], begin = `{"type":"webauthn.get","challenge":"${toBase64Url(challenge)}","origin":"${origin}"`;
  if (!same(client.subarray(0, begin.length), bytesOf(begin))) throw new Refusal("This browser had something else signed.");
  if (data.length < 37 || !same(data.subarray(0, 32), await digest("SHA-256", bytesOf(rpId)))) {
    throw new Refusal("The passkey is one of another web site.");
  }
  if (!(flags & PRESENT) || !(flags & VERIFIED)) throw new Refusal("The passkey did not ask who you are (a PIN, a finger).");
  if (flags & ATTESTED || Boolean(flags & EXTENDED) !== data.length > 37) throw new Refusal("The passkey's answer is damaged.");
  const numbers = numbersOf(new Uint8Array(response.signature));
  const signed = joined(data, await digest("SHA-256", client));
  for (const key of keys) {
    if (!same(key, keyBlob(pointOf(key), rpId)) || !(await isBy(key, numbers, signed))) continue;
    const made = joined(
      sized(KIND), sized(joined(...numbers.map(sized))), data.subarray(32, 37),
      sized(origin), sized(client), sized(data.subarray(37)),
    );
    const version = new Uint8Array([0, 0, 0, 1]);
    return toBase64(joined(bytesOf("SSHSIG"), version, sized(key), sized("deploykit"), sized(""), sized("sha512"), sized(made)));
  }
  throw new Refusal("That is another passkey than those that were enrolled here for signing.");
}

/** Have one of the passkeys sign; `keys` are {id, key} in base64, `challenge` is `signedBytes` of the body. */
export async function sign({ challenge, rpId, keys }) {
  const allowCredentials = keys.filter(({ id }) => id).map(({ id }) => ({ type: "public-key", id: fromBase64(id) }));
  const { response } = await navigator.credentials.get({
    publicKey: { challenge, rpId, allowCredentials, userVerification: "required", timeout: 300_000 },
  });
  return signatureOf(response, { challenge, origin: location.origin, rpId, keys: keys.map(({ key }) => fromBase64(key)) });
}

// -- a new key -----------------------------------------------------------------------------------------------------

/** Return the name under which a passkey is kept, and which the browser shows whenever it is asked for. */
export function keyName(sites, who) {
  return `SIGN ${sites.replaceAll(",", ", ")} releases (${visible(who, 60)})`;
}

/** Make a passkey that signs; return its registration as JSON, its blob, and the line for allowed_signers. */
export async function enrol({ challenge, rpId, sites, who, principal }) {
  const label = keyName(sites, who), id = crypto.getRandomValues(new Uint8Array(32));
  const made = await navigator.credentials.create({
    publicKey: {
      rp: { id: rpId, name: `deploykit ${rpId}` },
      user: { id, name: label, displayName: label },
      challenge: bytesOf(challenge),
      pubKeyCredParams: [{ type: "public-key", alg: -7 }],
      authenticatorSelection: { residentKey: "required", requireResidentKey: true, userVerification: "required" },
      attestation: "none",
      timeout: 300_000,
    },
  });
  const { clientDataJSON, attestationObject } = made.response;
  const blob = keyBlob(new Uint8Array(made.response.getPublicKey()).slice(-65), rpId);
  const [client, attestation] = [clientDataJSON, attestationObject].map((part) => toBase64Url(new Uint8Array(part)));
  return {
    blob,
    line: `${principal} namespaces="deploykit" ${KEY} ${toBase64(blob)} ${label}`,
    registration: JSON.stringify({
      id: made.id, rawId: made.id, type: made.type,
      response: { clientDataJSON: client, attestationObject: attestation },
    }),
  };
}
