"""The feeds of this example, read from data/earthquakes.csv: one feed for each seismic network.

Both the server that streams the rows and the check that proves their arrival read them from here;
the ingest program does not, so it can only know what came over its socket.
"""

import csv
import io
import os

FOLDER = os.path.dirname(os.path.abspath(__file__))
FIELDS = ["id", "time", "magnitude", "magnitude_type", "latitude", "longitude", "depth_km", "kind", "place"]


def database():
    """Where the ingest programs write and the check reads."""
    return os.environ.get("FEEDS_DB") or os.path.join(FOLDER, "out", "feeds.sqlite")


def feeds():
    """The rows of every feed in the order in which they happened, each one line of text."""
    rows = {}
    with open(os.path.join(FOLDER, "data", "earthquakes.csv"), newline="", encoding="utf-8") as file:
        for record in csv.DictReader(file):
            line = io.StringIO()
            csv.writer(line, lineterminator="").writerow([record[field] for field in FIELDS])
            rows.setdefault(record["network"], []).append(line.getvalue())
    return rows
