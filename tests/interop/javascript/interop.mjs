// Opens every test vector with jose, and seals two requests for the Rust side to open: one JSON line each.
import { CompactEncrypt, compactDecrypt, importJWK } from "jose";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const vectors = process.argv[2];
const read = (name) => JSON.parse(readFileSync(join(vectors, name), "utf8"));
const keys = read("keys.json");
const key = {
  request: await importJWK(keys.request_jwk, "A256KW"),
  reply: await importJWK(keys.response_jwk, "A256KW"),
};
// jose wants the allowed algorithms passed explicitly.
const allowed = { keyManagementAlgorithms: ["A256KW"], contentEncryptionAlgorithms: ["A256GCM"] };

/** The compact form of a body in the binary framing: the same five parts. */
function compact(body) {
  if (body.subarray(0, 4).toString() !== "MQJ1") throw new Error("not the binary framing");
  const header = 6 + body.readUInt16BE(4);
  const cuts = [[header, header + 40], [header + 40, header + 52], [header + 52, body.length - 16], [body.length - 16]];
  const parts = cuts.map(([from, to]) => body.subarray(from, to).toString("base64url"));
  return [body.subarray(6, header).toString(), ...parts].join(".");
}

for (const name of ["request-text", "request-tensor", "reply-text", "reply-tensor", "reply-error"]) {
  const vector = read(`${name}.json`);
  const body = vector.body ?? compact(Buffer.from(vector.body_hex, "hex"));
  const opened = await compactDecrypt(body, key[name.split("-")[0]], allowed);
  const plaintext = Buffer.from(opened.plaintext).toString("hex");
  if (plaintext !== vector.plaintext_hex) throw new Error(`${name}: another plaintext`);
  for (const [member, value] of Object.entries(vector.protected_header)) {
    if (opened.protectedHeader[member] !== value) throw new Error(`${name}: another ${member}`);
  }
  console.error(`opened ${name}`);
}

const tensor = Buffer.from(JSON.stringify({
  inputs: [{ name: "x", shape: [1, 2], datatype: "INT16", parameters: { binary_data_size: 4 } }],
}));
const text = Buffer.from(JSON.stringify({
  inputs: [{ name: "text", shape: [1], datatype: "BYTES", data: ["schöne Grüße"] }],
}));
for (const [plaintext, jsonLength] of [[text, null], [Buffer.concat([tensor, Buffer.from([1, 0, 255, 255])]), tensor.length]]) {
  const [id, iat, rto] = [randomUUID(), Math.floor(Date.now() / 1000), "acme.replies.js"];
  const header = {
    alg: "A256KW", enc: "A256GCM", typ: "inferq-req+jwe", cty: jsonLength === null ? "json" : "x-tensor",
    kid: keys.request_jwk.kid, iss: keys.tenant, aud: "inferq.v1", jti: id, cid: id, rto, mdl: "topic", iat, exp: iat + 300,
  };
  const body = await new CompactEncrypt(plaintext).setProtectedHeader(header).encrypt(key.request);
  console.log(JSON.stringify({
    body_hex: Buffer.from(body).toString("hex"), content_type: "application/jose",
    headers: jsonLength === null ? {} : { "inference-header-content-length": jsonLength },
    message_id: id, correlation_id: id, reply_to: rto,
  }));
}
