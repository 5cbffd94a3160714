"""The address of `ImageEmbedder` in pipelines that were pickled before 0.2."""

from tlfeat.extract.transformer import ImageEmbedder as ImageEmbedder
