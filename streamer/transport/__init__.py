"""The live rim's connection to a log: Kafka, or the embedded one, behind one seam."""
