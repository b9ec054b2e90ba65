"""Values to bytes and back, by codec name and version; the first codec that fits exactly wins."""

from perdure_storage.codecs.codecs import Codecs
from perdure_storage.codecs.encoded import Encoded, UserCodec, register_codec

__all__ = ["Codecs", "Encoded", "UserCodec", "register_codec"]
