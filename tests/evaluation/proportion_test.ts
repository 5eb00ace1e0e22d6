import { deepStrictEqual } from "node:assert/strict";
import { outOfProportion } from "../../evaluation/proportion.ts";

const CHANGES = [{ role: "layer.0.mlp.down", relative: 10 }, { role: "layer.1.mlp.down", relative: 196.4 }];

Deno.test("outOfProportion() names the weight and how much, and mom2_jitter where the method has it", () => {
  deepStrictEqual(outOfProportion(CHANGES, { mom2_jitter: 1e-6 }), [
    "layer.1.mlp.down changes by 196 times its own norm: either it has no room for so many edits, or some of " +
    "its units hardly ever fire and blow C⁻¹ up, which a mom2_jitter above 0.000001 holds down",
  ]);
  deepStrictEqual(outOfProportion(CHANGES, { lr: 1 }), [
    "layer.1.mlp.down changes by 196 times its own norm",
  ]);
});

Deno.test("outOfProportion() says nothing of edits in proportion", () => {
  deepStrictEqual(outOfProportion([CHANGES[0]], { mom2_jitter: 1e-6 }), []);
  deepStrictEqual(outOfProportion([], {}), []);
});
