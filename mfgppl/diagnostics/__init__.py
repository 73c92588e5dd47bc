"""Whether a result can be trusted: what data can tell, before any and after."""
