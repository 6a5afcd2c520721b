"""jaxseq as a plain `lax.scan`; its decoding is a scan of single steps."""

from functools import partial

from benchmarks.contenders import jaxseq

layer = partial(jaxseq.layer, implementation="scan")
