package jobmaker

import (
	"time"

	"btcpool/internal/auxwork"
	"btcpool/internal/job"
)

// notify says which news of other chains make a job at once; what is in a job anyway does not depend on it. The numbers
// are btcpool's.
type notify int

const (
	notifyNever  notify = iota
	notifyHeight        // AuxPoW: a greater height; RSK: when its node asks for it
	notifyHash          // every other block to work on
)

// How old work may be, with btcpool's numbers: to be taken in, and to be committed to.
const (
	maxWorkSkew = 60 * time.Second
	auxLifetime = 60 * time.Second
	rskLifetime = 120 * time.Second
)

// mergedMining holds the newest work of the chains that are mined along. It knows no clock.
type mergedMining struct {
	auxNotify, rskNotify notify

	aux *auxwork.Aux // nil: none yet
	rsk *auxwork.RSK // nil: none yet
}

// addAux takes in a message of the aux work topic; urgent says that miners should have the work at once.
func (m *mergedMining) addAux(message []byte, now time.Time) (r result, urgent bool, err error) {
	work, err := auxwork.ParseAux(message)
	if err != nil {
		return invalid, false, err
	}
	last := m.aux
	if r := admitWork(work.CreatedAt, now, last != nil && work.CreatedAt < last.CreatedAt); r != accepted {
		return r, false, nil
	}
	m.aux = &work
	switch m.auxNotify {
	case notifyHeight:
		urgent = last == nil || work.Height > last.Height
	case notifyHash:
		urgent = last == nil || work.Hash != last.Hash
	}
	return accepted, urgent, nil
}

// addRSK is addAux for the RSK work topic.
func (m *mergedMining) addRSK(message []byte, now time.Time) (r result, urgent bool, err error) {
	work, err := auxwork.ParseRSK(message)
	if err != nil {
		return invalid, false, err
	}
	last := m.rsk
	if r := admitWork(work.CreatedAt, now, last != nil && work.CreatedAt < last.CreatedAt); r != accepted {
		return r, false, nil
	}
	m.rsk = &work
	switch m.rskNotify {
	case notifyHeight:
		urgent = work.Notify
	case notifyHash:
		urgent = last == nil || work.BlockHash != last.BlockHash
	}
	return accepted, urgent, nil
}

func admitWork(createdAt uint32, now time.Time, superseded bool) result {
	switch {
	case workAge(createdAt, now).Abs() > maxWorkSkew:
		return skewed
	case superseded:
		return duplicate
	}
	return accepted
}

func workAge(createdAt uint32, now time.Time) time.Duration {
	return now.Sub(time.Unix(int64(createdAt), 0))
}

// fresh returns what a job may commit to now: nil for what is not there or too old.
func (m *mergedMining) fresh(now time.Time) (aux *auxwork.Aux, rsk *auxwork.RSK) {
	if m.aux != nil && workAge(m.aux.CreatedAt, now) <= auxLifetime {
		aux = m.aux
	}
	if m.rsk != nil && workAge(m.rsk.CreatedAt, now) <= rskLifetime {
		rsk = m.rsk
	}
	return aux, rsk
}

func auxOfJob(work *auxwork.Aux) job.AuxWork {
	return job.AuxWork{
		BlockHash:   work.Hash.String(),
		Bits:        work.Bits,
		Height:      work.Height,
		RPCAddr:     work.RPCAddr,
		RPCUserPass: work.RPCUserPass,
		Chains:      work.Chains,
	}
}

func rskOfJob(work *auxwork.RSK) job.RSKWork {
	return job.RSKWork{
		BlockHash:     work.BlockHash.String(),
		NetworkTarget: work.Target.String(),
		FeesForMiner:  work.FeesForMiner,
		RPCAddr:       work.RPCAddr,
		RPCUserPass:   work.RPCUserPass,
	}
}
