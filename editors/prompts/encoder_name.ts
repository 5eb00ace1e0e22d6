/** Names of encoders, as files of memories and editors hold them. */
import { z } from "npm:zod@4.6.7";
import { InputError } from "../../engine/io/errors.ts";

/** Which encoder made embeddings, for files: others' numbers mean nothing to it. */
export type EncoderName =
  /** A sentence encoder: its folder's name and the SHA-256 of its weights. */
  | { kind: "sentence"; name: string; hash: string }
  /** The edited model itself, before edits: mean states that enter these layers, side by side. */
  | { kind: "states"; layers: number[] };

const encoderSchema = z.union([
  z.object({ kind: z.literal("sentence"), name: z.string(), hash: z.string() }),
  z.object({ kind: z.literal("states"), layers: z.array(z.number().int().min(0)).min(1) }),
]);

/** Checks an encoder's name from a file. @throws {InputError} naming the file */
export function parseEncoderName(text: string | undefined, path: string): EncoderName {
  try {
    return encoderSchema.parse(JSON.parse(text ?? ""));
  } catch {
    throw new InputError(`Cannot read ${path}: its metadata names no encoder that emend knows`);
  }
}
