/** Scopes by cosine: the limit, and a margin above the crowd in memories of many facts. */
import assert from "node:assert/strict";
import type { PromptEdit } from "../../editors/prompts/edit.ts";
import { nearestFacts } from "../../editors/prompts/scope.ts";

/** Unit vectors of the plane at these angles, in degrees. */
const at = (...degrees: number[]) =>
  degrees.map((d) => [Math.cos(d * Math.PI / 180), Math.sin(d * Math.PI / 180)]);

function memory(angles: number[], margin?: number): Pick<PromptEdit, "facts" | "scope"> {
  return {
    scope: {
      ...{ rule: "nearest", alone: false, encoder: { kind: "states", layers: [0] }, measure: "cosine" },
      ...{ limit: 0.5, margin },
    },
    facts: at(...angles).map((e, i) => ({ text: `${i}`, front: `${i}`, embedding: Float32Array.from(e) })),
  };
}

const asked = (angle: number, of: Pick<PromptEdit, "facts" | "scope">) =>
  nearestFacts(of, Float32Array.from(at(angle)[0]))[0]!;

Deno.test("a prompt near one fact of many is about it, one near three alike is about none", () => {
  // The third nearest of 0° is at 60°: 1 − ½. Of 70° it is at 80°, and cos 10° − cos 20° is small.
  const many = memory([0, 60, 80, 90], 0.3);
  assert.deepEqual([asked(0, many).fact, asked(0, many).inScope], [0, true]);
  assert.deepEqual([asked(70, many).inScope, asked(70, memory([0, 60, 80, 90])).inScope], [false, true]);
  // Exactly as far as asked for counts; the order of the facts does not.
  const third = asked(0, memory([80, 0, 60])).value - Math.fround(Math.cos(80 * Math.PI / 180));
  assert.ok(
    asked(0, memory([80, 0, 60], third - 1e-6)).inScope &&
      !asked(0, memory([80, 0, 60], third + 1e-6)).inScope,
  );
});

Deno.test("of one or two facts, and without a margin, the limit alone decides", () => {
  for (const angles of [[10], [10, 12]]) {
    assert.ok(asked(0, memory(angles, 0.9)).inScope);
    assert.ok(!asked(100, memory(angles, 0.9)).inScope);
  }
  assert.ok(asked(0, memory([1, 2, 3, 4])).inScope);
});

Deno.test("of facts that are equally near the last one is taken", () => {
  assert.equal(asked(0, memory([5, 40, 5, 60])).fact, 2);
});
