"""Texts that are hard to cut into tokens. The first three are those of sentence-transformers' quickstart."""

from __future__ import annotations

ODD = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "Ünïcödé àccents, e\u0301 decomposed, ﬁ ligature, İstanbul",
    "中文测试文本,今天天气很好。 日本語 한국어",
    "🙂🎉 emoji 👩‍👩‍👧‍👦 family",
    "control\x00\x01\x02\x7f chars\u200b zero\u200dwidth\ufeff soft\u00adhyphen nbsp\u00a0here",
    "a" * 101,
    "word " * 600,
    "[CLS] special [SEP] tokens [MASK] [UNK] [PAD]",
    "مرحبا بالعالم שלום हिन्दी ไทย",
    "<b>html</b> & &amp; C++ don't —–‒ “curly” 1,234.56 $99.99",
]
