"""Reproductions of papers. Each folder has `rows.py` (what is run), `run.py` (runs it), `claims.json` and a README.

python -m papers.lopes2017.run --budget smoke
"""
