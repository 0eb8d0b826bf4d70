# Obeys one line after the other, and says how it went.
import sys

VERBS = {"take": take, "write": write, "tokens": tokens, **globals().get("MORE", {})}

for line in sys.stdin:
    verb, _, rest = line.rstrip("\n").partition(" ")
    if verb == "end":
        print("@end")
        continue
    try:
        print(VERBS[verb](rest) or "done")
    except Fenced:
        print("fenced")
