/** Two patches beside each other: which tensors they change, how much, in which direction, and for whom. */
import type { EditRequest } from "../editors/requests.ts";
import { InputError, show } from "../engine/io/errors.ts";
import { canonical } from "./canonical.ts";
import { storedShape } from "./changes.ts";
import { byTensor, frobenius, innerProduct, rankOf } from "./norms.ts";
import type { Patch, TensorDelta } from "./patch.ts";

/** A patch's change of one tensor. */
export interface ChangeSize {
  rank: number;
  /** ‖ΔW‖ */
  frobenius: number;
}

/** One tensor that at least one of the patches changes. */
export interface TensorComparison {
  tensor: string;
  /** As stored. */
  shape: number[];
  a?: ChangeSize;
  b?: ChangeSize;
  /** ⟨ΔA, ΔB⟩ / (‖ΔA‖ ‖ΔB‖), where both change it. */
  cosine?: number;
}

/** What {@link comparePatches} returns. */
export interface PatchComparison {
  /** Whether they are for the same base. */
  sameBase: boolean;
  tensors: TensorComparison[];
  /** Over all tensors together; undefined when one patch changes nothing. */
  cosine?: number;
  requests: { both: EditRequest[]; onlyA: EditRequest[]; onlyB: EditRequest[] };
}

/**
 * Compares two patches.
 * @throws {InputError} when they have a tensor in different shapes
 */
export function comparePatches(a: Patch, b: Patch): PatchComparison {
  const [inA, inB] = [byTensor(a.deltas), byTensor(b.deltas)];
  let dot = 0, a2 = 0, b2 = 0;
  const tensors = [...new Set([...inA.keys(), ...inB.keys()])].map((tensor): TensorComparison => {
    const [ours, theirs] = [inA.get(tensor), inB.get(tensor)];
    const shape = storedShape((ours ?? theirs)![0]);
    const [sizeA, sizeB] = [ours && sizeOf(ours), theirs && sizeOf(theirs)];
    a2 += (sizeA?.frobenius ?? 0) ** 2;
    b2 += (sizeB?.frobenius ?? 0) ** 2;
    if (!ours || !theirs) return { tensor, shape, ...sizeA && { a: sizeA }, ...sizeB && { b: sizeB } };
    const other = storedShape(theirs[0]);
    if (shape.join() !== other.join()) {
      throw new InputError(
        `The patches have ${show(tensor)} as [${shape.join(", ")}] and [${other.join(", ")}]`,
      );
    }
    const product = innerProduct(ours, theirs);
    dot += product;
    return {
      tensor,
      shape,
      a: sizeA,
      b: sizeB,
      cosine: cosineOf(product, sizeA!.frobenius * sizeB!.frobenius),
    };
  });
  const key = ({ prompt, subject, target }: EditRequest) => canonical([prompt, subject, target]);
  const [keysA, keysB] = [a, b].map(({ requests }) => new Set(requests.map(key)));
  const { hash } = a.base;
  return {
    sameBase: hash === b.base.hash,
    tensors,
    cosine: cosineOf(dot, Math.sqrt(a2 * b2)),
    requests: {
      both: a.requests.filter((request) => keysB.has(key(request))),
      onlyA: a.requests.filter((request) => !keysB.has(key(request))),
      onlyB: b.requests.filter((request) => !keysA.has(key(request))),
    },
  };
}

function sizeOf(deltas: TensorDelta[]): ChangeSize {
  return { rank: rankOf(deltas), frobenius: frobenius(deltas) };
}

/** In [−1, 1]; rounding may carry a quotient a little further. */
function cosineOf(product: number, norms: number): number | undefined {
  return norms > 0 ? Math.max(-1, Math.min(1, product / norms)) : undefined;
}
