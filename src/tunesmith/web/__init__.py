"""Pages: facts in, one self-contained HTML document out; no script is needed to read it.

The report page takes the dictionary that flows/page.py gathers and draws it with server-made SVG.
Read report.py first, then charts.py.
"""
