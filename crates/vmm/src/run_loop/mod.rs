//! vCPU threads and what their exits mean.
