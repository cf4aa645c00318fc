"""The page of a run: one HTML file that opens from a disk, needs no network and can be mailed.

`facts` reads the folder of the run, `features` measures what its network sees, `charts` draws SVG,
`sections` and `seen` write the parts of the page, `page` puts them together, `compare` does the same for several runs.
"""
