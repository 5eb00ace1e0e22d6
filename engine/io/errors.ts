/**
 * The one error type for bad input (files, formats, configs, requests). The command line prints its
 * message and hint without a stack trace; anything else that escapes is a bug of ours.
 */

/** Bad input. `message` is one sentence without a final period; `hint`, where known, says what to do. */
export class InputError extends Error {
  override readonly name = "InputError";
  /** What the user can do about it: one sentence, or undefined. */
  readonly hint?: string;

  constructor(message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    if (options.hint !== undefined) this.hint = options.hint;
  }
}

/** A string from a file made fit for an error message: quoted, escaped, at most 80 characters. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}…${text.endsWith('"') ? '"' : ""}` : text;
}
