// What the tests of all npm clients need.
import assert from "node:assert/strict";

export const WORDS = "the quick brown fox jumps over  the lazy dog";
export const LONG = "word ".repeat(2000);
export const BROKEN = "one two three four five six";
export const READ_ONLY_KEY = process.env.READ_ONLY_KEY;

/** Everything that comes out of a stream, in order. */
export async function collect(stream) {
  const all = [];
  for await (const part of stream) all.push(part);
  return all;
}

/** That `asked` is refused with an error that `is` one of its kind and has `fields`. */
export async function refused(asked, is, fields) {
  await assert.rejects(asked, (error) => {
    assert.ok(is(error), `${error?.stack ?? error}`);
    assert.deepEqual(Object.fromEntries(Object.keys(fields).map((name) => [name, error[name]])), fields);
    return true;
  });
}

/** A fetch that remembers the bodies it sent. */
export function watched() {
  const sent = [];
  const watching = (url, init) => {
    sent.push(init?.body ? JSON.parse(init.body) : undefined);
    return fetch(url, init);
  };
  return { sent, fetch: watching };
}
