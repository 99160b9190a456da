"""How well and how fast customers' words are heard: the tables and figures of docs/text.md.

    python benchmarks/text.py            # quality over the labelled sentences, and speed over 20,000 messages
    python benchmarks/text.py --small    # the same with 4,000 messages
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "signals"))

from heard import SETTINGS, markdown, sentences

from churnkit.signals.cues import CUES, count_cues, lists_of
from churnkit.signals.sentiment import polarity
from churnkit.signals.wording import own_words, tokens


def messages(size: int) -> pd.Series:
    """Different messages of two to four labelled sentences each, a number in each, as tickets have."""
    pool = sentences()["text"].tolist()
    return pd.Series([" ".join(pool[(place * 7 + step * 131 + place // len(pool)) % len(pool)]
                               for step in range(2 + place % 3)) + f" Ref {place}" for place in range(size)])


def naive(texts: pd.Series) -> pd.DataFrame:
    """The same lists, message by message and cue by cue, with Python's own `re`."""
    lists = lists_of(SETTINGS)
    plain = tokens(own_words(texts, lists.headers), lists.loud).to_pylist()
    traps = [re.compile(pattern) for pattern in lists.traps]
    cues = {name: [re.compile(pattern) for pattern in patterns] for name, patterns in lists.cues.items()}
    rows = []
    for text in plain:
        clear, row = text, {}
        for pattern in traps:
            clear = pattern.sub(" ~ ", clear)
        for name, patterns in cues.items():
            left, row[name] = clear, 0
            for pattern in patterns:
                left, found = pattern.subn(" § ", left)
                row[name] += found
        rows.append(row)
    return pd.DataFrame(rows, columns=list(CUES)).astype("int32")


def timed(call: Callable[[], pd.DataFrame]) -> tuple[float, pd.DataFrame]:
    """Seconds of processor time, which other work on the machine does not change, and what came of it."""
    start = time.process_time()
    made = call()
    return time.process_time() - start, made


def speed(size: int) -> None:
    """Prints messages per second, one after the other in one process."""
    texts = messages(size)
    few = texts.head(size // 20)
    count_cues(few.head(10), SETTINGS)  # compiles the lists once
    print(f"\n{size:,} different messages, {texts.str.len().mean():.0f} characters on average; "
          "messages per second of one processor")
    seconds, fast = timed(lambda: count_cues(texts, SETTINGS))
    print(f"cues, 7 languages, 7 cues          {size / seconds:>10,.0f}")
    slow_seconds, slow = timed(lambda: naive(few))
    same = (fast.head(len(few)).to_numpy() == slow.to_numpy()).mean()
    print(f"the same by a loop with Python's re {len(few) / slow_seconds:>9,.0f}   ({same:.2%} of the counts equal)")
    analyzer = SentimentIntensityAnalyzer()
    seconds, _ = timed(lambda: [analyzer.polarity_scores(text) for text in few])
    print(f"VADER alone                        {len(few) / seconds:>10,.0f}")
    seconds, _ = timed(lambda: polarity(texts, SETTINGS))
    print(f"polarity and cues together         {size / seconds:>10,.0f}")
    long = pa.array(["a" * 1_000_000, "again " * 170_000, "not want to " * 80_000, "!" * 1_000_000])
    seconds, _ = timed(lambda: count_cues(long.to_pandas(), SETTINGS))
    print(f"four messages of 1 MB made to be hard: {seconds:.2f} s")


if __name__ == "__main__":
    print(markdown())
    speed(4_000 if "--small" in sys.argv else 20_000)
