/**
 * English words as NLTK's `word_tokenize` splits them: sentences by Punkt, then the Penn Treebank conventions
 * (nltk/tokenize/destructive.py of NLTK 3.9.2; that of 3.7, which MEMIT pins, differs only where a line break
 * follows an apostrophe). Quotes become `` and '', contractions two words, a final full stop a word of its own.
 */
import { python, sentences } from "./punkt.ts";

/** Applied in order; what a rule makes is the next one's input. */
const RULES: [RegExp, string][] = [
  // Opening quotes.
  [/([«“‘„]|`+)/gu, " $1 "],
  [/^"/u, "``"],
  [/(``)/gu, " $1 "],
  [/([ ([{<])("|'{2})/gu, "$1 `` "],
  [python("(')(?!re|ve|ll|m|t|s|d|n)(\\w)\\b", "giu"), "$1 $2"],
  // Punctuation.
  [python(`([^.])(\\.)([\\])}>"'»”’ ]*)\\s*$`, "u"), "$1 $2 $3 "],
  [python("([:,])([^\\d])"), " $1 $2"],
  [/([:,])(?=\n?$)/u, " $1 "],
  [/\.{2,}/gu, " $& "],
  [/[;@#$%&]/gu, " $& "],
  [python(`([^.])(\\.)([\\])}>"']*)\\s*$`, "u"), "$1 $2$3 "],
  [/[?!]/gu, " $& "],
  [/([^'])' /gu, "$1 ' "],
  [/[*]/gu, " $& "],
  [/[\][(){}<>]/gu, " $& "],
  [/--/gu, " -- "],
  // A space at either end makes the rest easier.
  [/^[^]*$/u, " $& "],
  // Closing quotes and clitics.
  [/([»”’])/gu, " $1 "],
  [/''/gu, " '' "],
  [/"/gu, " '' "],
  [python("\\s+"), " "],
  [/([^' ])('[sSmMdD]|') /gu, "$1 $2 "],
  [/([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) /gu, "$1 $2 "],
  // Contractions that are written as one word.
  ...[
    "(can)(not)\\b",
    "(d)('ye)\\b",
    "(gim)(me)\\b",
    "(gon)(na)\\b",
    "(got)(ta)\\b",
    "(lem)(me)\\b",
    "(more)('n)\\b",
    "(wan)(na)(?=\\s)",
  ].map((rule): [RegExp, string] => [python("\\b" + rule, "giu"), " $1 $2 "]),
  [python(" ('t)(is)\\b", "giu"), " $1 $2 "],
  [python(" ('t)(was)\\b", "giu"), " $1 $2 "],
];

/** The words and punctuation marks of a text, in order. */
export function wordTokens(text: string): string[] {
  return sentences(text).flatMap((sentence) => {
    const spaced = RULES.reduce((part, [pattern, by]) => part.replace(pattern, by), sentence);
    return spaced.match(python("\\S+")) ?? [];
  });
}
