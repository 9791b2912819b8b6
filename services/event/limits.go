package event

// Every bound of the event, with its reason. Texts beyond a bound marked "cut"
// are shortened, marked in event.marks and counted; the others are refused,
// because a shortened name would be another name.
const (
	// LimitMessage bounds message (cut). The longest lines of real logs, stack
	// traces aside, stay below it.
	LimitMessage = 32 << 10
	// LimitText bounds every other free text, and a label's value (cut).
	LimitText = 4 << 10
	// limitName bounds names and ids that a producer chooses (refused).
	limitName = 512
	// limitWord bounds terms from a vocabulary and ids of ours (refused).
	limitWord = 128
	// limitIP holds the longest text form of an IPv6 address with a zone.
	limitIP = 64

	// LimitLabels bounds how many labels an event carries (refused): the rest of
	// the event is made for what is common.
	LimitLabels = 32
	// LimitLabelKey bounds a label's key (refused).
	LimitLabelKey = 128

	// LimitEventJSON bounds one event as JSON: all texts at their limits,
	// escaped, with room for labels.
	LimitEventJSON = 1 << 20

	// LimitRows bounds a batch: beyond it, columns gain nothing and one
	// message's loss or delay weighs more.
	LimitRows = 8192
	// LimitBatchBytes bounds the raw bytes of a batch, so that its message stays
	// below the bus's 1 MiB even when nothing compresses.
	LimitBatchBytes = 768 << 10
	// LimitMessageBytes is the bus's max_payload; what is longer is not ours.
	LimitMessageBytes = 1 << 20
	// limitInflated bounds what one message may unpack to. LZ4 reaches 255:1 on
	// zeros, so a hostile 1 MiB could ask for 255 MiB; an honest one at most
	// LimitBatchBytes and its dictionaries.
	limitInflated = 32 << 20
	// limitFrames bounds the frames of a message: a schema, one dictionary a
	// Dict field, one batch, with room for a later schema.
	limitFrames = 128

	// MinTime and MaxTime bound time, Unix milliseconds: 1970 to 2261. Beyond
	// them nanosecond clocks and DateTime64 disagree.
	MinTime = 0
	MaxTime = 9_214_646_400_000 // 2262-01-01T00:00:00Z
)
