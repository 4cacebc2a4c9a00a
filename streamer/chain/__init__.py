"""The chain of stages that one topology becomes where its payments have several partitions."""
