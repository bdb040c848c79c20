// Looks for a number with which the SHA-256 (FIPS 180-4) of the task begins with enough zero bits.
"use strict";

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) {
  if (PRIMES.every((prime) => n % prime)) {
    PRIMES.push(n);
  }
}
const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
const K = new Int32Array(PRIMES.map((prime) => fraction(Math.cbrt(prime))));
const START = new Int32Array(PRIMES.slice(0, 8).map((prime) => fraction(Math.sqrt(prime))));
const W = new Int32Array(64);

function mix(state, view, from) {
  for (let i = 0; i < 16; i++) {
    W[i] = view.getInt32(from + 4 * i);
  }
  for (let i = 16; i < 64; i++) {
    const x = W[i - 15];
    const y = W[i - 2];
    const s = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
    const t = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
    W[i] = (W[i - 16] + s + W[i - 7] + t) | 0;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const s = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
    const t = (h + s + ((e & f) ^ (~e & g)) + K[i] + W[i]) | 0;
    const u = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
    const v = (u + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t) | 0;
    d = c;
    c = b;
    b = a;
    a = (t + v) | 0;
  }
  const add = [a, b, c, d, e, f, g, h];
  for (let i = 0; i < 8; i++) {
    state[i] = (state[i] + add[i]) | 0;
  }
}

function hashed(text) {
  const length = text.length;
  const bytes = new Uint8Array(((length + 72) >> 6) << 6);
  for (let i = 0; i < length; i++) {
    bytes[i] = text.charCodeAt(i);
  }
  bytes[length] = 0x80;
  const view = new DataView(bytes.buffer);
  view.setUint32(bytes.length - 4, length * 8);
  const state = START.slice();
  for (let from = 0; from < bytes.length; from += 64) {
    mix(state, view, from);
  }
  return state;
}

onmessage = ({ data }) => {
  for (let number = 0; ; number++) {
    const state = hashed(`${data.challenge}.${number}`);
    // No more than 24 bits are ever asked for.
    if (state[0] >>> (32 - data.bits) === 0) {
      postMessage({ number, tried: number });
      return;
    }
    if (number % 20000 === 0) {
      postMessage({ tried: number });
    }
  }
};
