/* SPDX-License-Identifier: MIT */
/*
 * "Ends" and "Death and restart" of docs/channels.rst: two ends that open, write,
 * read, close, die at any step and are succeeded. Each step has at most one
 * access to the memory. Asserted: a byte is read in the connection that it was
 * written in, nothing is written to one whose reader has seen its end, and when
 * all have stopped closing and dying the ends are connected.
 *
 * -DNOT_FINAL, -DLATE, -DSTALE, -DKEEP_ACK, -DNO_ACK leave something out that is needed.
 */
#ifndef DEATHS
#define DEATHS	1
#endif
#ifndef CLOSES
#define CLOSES	1
#endif
#ifdef BOTH
#define WRITES	1		/* how many bytes, after each time that it was connected */
#else
#define WRITES	(1 - me)
#endif

#define CLOSED		0
#define OPEN		1
#define CONNECTED	2
#define ENDED		4	/* FINISHED is CONNECTED without writing */
#define WORD(epoch, state) ((epoch) * 8 + (state))
#define EPOCH(word)	((word) / 8)
#define STATE(word)	((word) % 8)

/* The memory. Rings are long enough here; wakeup.pml has the full one. */
byte state[2], ack[2], start[2], head[2], tail[2];
byte written[32];		/* the connection a byte was written in, of both sides in turn */

bool told[2];			/* the doorbell, until it is cleared */
bool die[2];
byte deaths = DEATHS, closes = CLOSES;
byte ended[2];			/* the connection whose end this side has seen */
bool connected[2];

#define OVER(word) (EPOCH(word) != accepted || STATE(word) == CLOSED || STATE(word) == ENDED)
#define CONNECTION(writer, reader) ((writer) * 16 + (reader))
#define LISTENS(word) (EPOCH(word) == accepted && STATE(word) == CONNECTED)

inline tell() { told[1 - me] = true }

inline begin()
{
	start[me] = head[me];
#ifndef KEEP_ACK
	ack[me] = 0;
#endif
	d_step { accepted = 0; epoch++; assert(epoch < 16); state[me] = WORD(epoch, OPEN); phase = OPEN };
	tell()
}

inline attach()
{
	d_step { epoch = EPOCH(state[me]); word = STATE(state[me]); connected[me] = false };
	if
	:: word == OPEN -> ack[me] = 0
	:: else
	fi;
	state[me] = WORD(epoch, CLOSED);
	tell();
	accepted = ack[me];
	if
	:: accepted ->
		d_step { phase = ENDED; index = tail[me]; state[me] = WORD(epoch, ENDED) };
		tell()
	:: else -> begin()
	fi
}

/* What is loaded first is in word; answers with more, and in limit and final. */
inline find_limit()
{
	word = state[1 - me];
	if
	:: EPOCH(word) == accepted ->
		d_step {
			limit = head[1 - me];
#ifdef NOT_FINAL
			final = OVER(word)
#else
			final = OVER(word) || (phase == ENDED && STATE(word) == OPEN)
#endif
		}
	:: else ->
		limit = start[1 - me];
		d_step {
			final = (EPOCH(state[1 - me]) == EPOCH(word));
			limit = (final -> limit : index)
		}
	fi
}

inline connect()
{
	word = state[1 - me];
	if
	:: EPOCH(word) != accepted && STATE(word) == OPEN ->
		limit = start[1 - me];
		if
		:: EPOCH(state[1 - me]) == EPOCH(word) ->
			d_step { accepted = EPOCH(word); index = limit; tail[me] = index };
			ack[me] = accepted;
			tell()
		:: else
		fi;
		word = state[1 - me]
	:: else
	fi;
	if
	:: EPOCH(word) == accepted ->
		seen = ack[1 - me];
#ifndef STALE
		word = state[1 - me];	/* after the ack, which then is of this epoch */
#endif
		if
#ifdef NO_ACK
		:: !OVER(word) ->
#else
		:: seen == epoch && !OVER(word) ->
#endif
			d_step {
				phase = CONNECTED; left = WRITES;
#ifndef LATE
				state[me] = WORD(epoch, CONNECTED);
#endif
				connected[me] = true
			};
			tell();
#ifdef LATE
			word = state[1 - me];
			state[me] = WORD(epoch, CONNECTED);
			if
			:: LISTENS(word) -> write_byte()
			:: else
			fi
#endif
		:: else
		fi
	:: else
	fi
}

/* The other end was listening when it was looked at last. */
inline write_byte()
{
	d_step { assert(tail[1 - me] >= start[me] && tail[1 - me] <= head[me]) };
	d_step {
		assert(ended[1 - me] != CONNECTION(epoch, accepted));
		written[head[me] * 2 + me] = CONNECTION(epoch, accepted);
		head[me]++;
		left--
	};
	tell()
}

inline read_byte()
{
	d_step {
		assert(written[index * 2 + 1 - me] == CONNECTION(accepted, epoch));
		index++;
		tail[me] = index
	}
}

proctype side(byte me)
{
	byte phase, epoch, accepted, index, word, limit, left, seen;
	bool final;

again:
	{
		attach();
		do
		:: true ->
			/* what isn't needed any more is zero, which makes fewer states */
			d_step { told[me] = false; limit = 0; final = false };
			word = state[1 - me];
			if
			:: phase == CONNECTED && OVER(word) ->
				d_step {
					phase = ENDED;
					state[me] = WORD(epoch, ENDED); connected[me] = false
				};
				tell()
			:: phase == OPEN -> connect(); d_step { seen = 0; limit = 0 }
			:: else
			fi;
			if
			:: phase != OPEN ->
				find_limit();
				do
				:: index < limit -> read_byte()
				:: else -> break
				od;
				if
				:: final && phase == ENDED -> ended[me] = CONNECTION(accepted, epoch); begin(); told[me] = true
				:: else
				fi
			:: else
			fi;
			d_step { limit = 0; word = 0 };
			if
			:: phase == CONNECTED && left ->
				word = state[1 - me];
				if
				:: LISTENS(word) -> write_byte(); told[me] = true
				:: else
				fi
			:: else
			fi;
			if
			:: atomic { told[me] -> word = 0 }
			:: atomic { closes -> closes-- };
				ack[me] = 0;
				d_step { state[me] = WORD(epoch, CLOSED); connected[me] = false };
				tell();
				begin()
			fi
		od
	} unless {
		atomic { die[me] -> die[me] = false }
	};
	d_step { phase = 0; accepted = 0; index = 0; limit = 0; left = 0; final = false; word = 0; seen = 0 };
	goto again
}

active proctype death()
{
	do
	:: deaths && !die[0] -> atomic { deaths--; die[0] = true }
	:: deaths && !die[1] -> atomic { deaths--; die[1] = true }
	:: timeout -> assert(connected[0] && connected[1]); break
	od
}

init { atomic { run side(0); run side(1) } }
