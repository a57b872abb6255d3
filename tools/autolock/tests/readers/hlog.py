"""Reads an HdrHistogram log with the public reader; a line of JSON for each histogram.

Usage: hlog.py FILE. Needs the package hdrhistogram from PyPI.
"""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

# The reader wants one to know how to make others.
reference = HdrHistogram(1, (1 << 42) - 1, 2)
reader = HistogramLogReader(sys.argv[1], reference)
while (histogram := reader.get_next_interval_histogram()) is not None:
    print(
        json.dumps(
            {
                "tag": histogram.get_tag(),
                "count": histogram.get_total_count(),
                "recorded": [
                    (histogram.get_highest_equivalent_value(item.value_iterated_to), item.count_at_value_iterated_to)
                    for item in histogram.get_recorded_iterator()
                ],
                "digits": histogram.significant_figures,
                "start_ms": histogram.get_start_time_stamp(),
                "length_ms": histogram.get_end_time_stamp() - histogram.get_start_time_stamp(),
            }
        )
    )
