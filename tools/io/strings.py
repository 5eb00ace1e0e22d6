"""Texts that tokenizers are compared on: the awkward corners of Unicode, spacing, digits and code."""
import random

STRINGS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t",
    "\r\n", " \n ", "a", " a", "a ", "  a  b   c    ", "\u00a0x\u00a0",
    "The capital of France is", " Paris", "The mother tongue of Danielle Darrieux is French.",
    "1", "12", " 12", "  12", "1234567890", "3.14159",
    "10,000", "$5.00", "a1b22c333", "٣٤٥", "½ ⅓ ²³", "Ⅷ", "１２３",
    "don't you've they'll I'm he'd we're it's", "DON'T YOU'VE THEY'LL", "'s't're", "’s curly", "o'clock",
    "Ünïcödé — “quotes” … naïve café", "cafe\u0301 decomposed", "e\u0301\u0301\u0327", "Å\u030a ﬁ ﬂ",
    "東京", "北京市", "日本語のテキスト", "한국어 텍스트",
    "\u1112\u1161\u11ab\u1100\u1173\u11af", "ไทย", "हिन्दी में", "العربية",
    "עברית", "Ελληνικά", "Русский текст", "Tiếng Việt", "İstanbul ıI",
    "ß ẞ SS", "🤖", "👩‍👩‍👧‍👦 family", "🇫🇷 flag", "👍🏽",
    "a🤖b", "🤖🤖🤖", "𝒳𝓎𝓏", "\U0001f600x",
    "zero\u200bwidth\u200djoin", "\ufeffBOM", "mid\ufeffBOM", "\u0085next",
    "\u2028line\u2029para", "\x00null", "\x7f\x1b", "￿", "x=y+1;//comment\nfor(i=0;i<10;i++){}",
    "def f(x):\n    return x\n\n\n",
    "<html><body class=\"a\">&amp;</body></html>", "http://example.com/a?b=c&d=%20",
    "user@example.org", "#tag @user", "HELLO World_hello-world", "CamelCaseWords", "snake_case_words",
    "!!!???...", "......", "--- ===", "a" * 200, "ab" * 100,
    "é" * 50, " " * 40, "\n" * 20, "1" * 40, "▁under▁line",
    "<0x41>", "<|endoftext|>", "<|im_start|>user\nHi<|im_end|>\n", "x<|im_end|>y",
    " <|im_end|> ", "<s>", "</s> a", "<unk>",
    "Ġtoken", "\\n literal", "tab\tsep\tvals", "mixed \t \n spaces", "trailing\n", "trailing  \n  next",
]


SUBJECTS = ["Paris", "Marie Curie", "the Eiffel Tower", "Danielle Darrieux", "Mount Everest", "Toko Yasuda",
            "São Paulo", "Łódź"]
VERBS = ["was born in", "is located in", "plays the", "works as a", "died on", "is the capital of", "costs",
         "wrote", "didn't see"]
OBJECTS = ["France", "1912", "guitar", "chemist", "12 May 1867", "Poland", "$3.50", "“Émile”", "New York City",
           "it's", "3,141,592", "東京"]
SEPARATORS = [" ", " ", " ", " ", "  ", ", ", "\n", "\t", "", " — ", " (", ") ", "...", "🤖", " \n "]


def random_texts(count, seed=2):
    """`count` sentences with odd joins, and as many strings of random characters, always the same ones."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(1, 4)):
            parts += [rng.choice(SUBJECTS), " ", rng.choice(VERBS), " "]
            parts += [rng.choice(OBJECTS), rng.choice(SEPARATORS)]
        texts.append("".join(parts))
        ranges = [(32, 126), (32, 126), (0, 0x2FF), (0x300, 0x36F), (0x370, 0x1FFF), (0x2000, 0x2BFF),
                  (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0x20, 0x20)]
        chars = []
        for _ in range(rng.randint(1, 30)):
            low, high = rng.choice(ranges)
            chars.append(chr(rng.randint(low, high)))
        texts.append("".join(chars))
    return texts
