import { deepStrictEqual, rejects, strictEqual, throws } from "node:assert/strict";
import { factorSpd } from "../../../engine/linalg/cholesky.ts";
import { unpackFactor } from "../../../engine/linalg/unpack.ts";
import { freeTensor } from "../../../engine/tensor/tensor.ts";
import { normals } from "../ops/_reference.ts";
import { DEVICES, SPECTRA, split, symmetric, upload } from "./_spd.ts";

Deno.test("unpackFactor() restores the solver bit for bit when a factor was packed", async () => {
  const n = 130;
  const { hi, lo } = split(symmetric(n, SPECTRA["i^-1"]));
  const b = normals(2 * n, 2);
  for (const [device, route] of [["native", "f64"], ["native", "host"], ["single", "compensated"]] as const) {
    const gpu = await DEVICES[device]();
    const C = upload(gpu, hi, n);
    const low = upload(gpu, lo, n);
    using factor = await factorSpd(gpu, C, { name: "C", route, lo: low });
    using restored = unpackFactor(gpu, await factor.pack());
    for (const fact of ["name", "n", "route", "jitter", "shift", "conditionEstimate"] as const) {
      strictEqual(restored[fact], factor[fact]);
    }
    deepStrictEqual(await restored.solve(b, 2), await factor.solve(b, 2));
    [C, low].forEach((t) => freeTensor(gpu, t));
  }
});

Deno.test("unpackFactor() refuses bytes that are not a whole factor", async () => {
  const gpu = await DEVICES.native();
  const single = await DEVICES.single();
  const C = upload(gpu, new Float32Array([2, 1, 1, 2]), 2);
  using factor = await factorSpd(gpu, C, { name: "C", route: "f64" });
  const bytes = await factor.pack();
  throws(() => unpackFactor(gpu, bytes.subarray(0, 3)), /from 3 bytes: the header is cut short/);
  throws(() => unpackFactor(gpu, bytes.subarray(0, 20)), /from 20 bytes: the header is cut short/);
  throws(() => unpackFactor(gpu, bytes.subarray(0, bytes.length - 8)), /: l is cut short/);
  throws(() => unpackFactor(gpu, new Uint8Array(16)), /: the header is not JSON/);
  const header = new TextEncoder().encode('{"format":"other"}');
  throws(() => unpackFactor(gpu, Uint8Array.of(header.length, 0, 0, 0, ...header)), /: its format is other/);
  throws(() => unpackFactor(single, bytes), /Cannot restore the f64 factor of C: the device has no f64/);
  const grown = new TextDecoder("latin1").decode(bytes).replace('"n":2', '"n":3');
  throws(
    () => unpackFactor(gpu, Uint8Array.from(grown, (c) => c.charCodeAt(0))),
    /Cannot restore the factor of C: scale is not 3 numbers/,
  );
  await rejects(
    async () => await unpackFactor(gpu, bytes).solve(new Float64Array(3)),
    /have 2 values, not 3/,
  );
  freeTensor(gpu, C);
});
