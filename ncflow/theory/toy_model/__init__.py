"""The toy model of CBMM Memo 117, section 3: its network, the fields of its flow, and how its norm grows."""
