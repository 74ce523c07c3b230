"""The league: methods of data-free quantization on the same networks, by the same quantizer, in one table.

``python -m benchmarks.league`` plays cells, each a run in a folder of its own: a method with a step size and a seed, in
a column, which is a network at its bits. It writes docs/league.csv, .md and .png. Killed and started again, it goes on.
"""
