//! Quick.
use microvm_ring3::*;
fn main() {
    let kvm = open_device(None).unwrap();
    let t = std::time::Instant::now();
    let p = KvmPlatform::new(kvm, KvmOptions::default()).unwrap_or_else(|e| { eprintln!("{e:?}"); std::process::exit(1) });
    println!("{:?} {:?}", t.elapsed(), p.host_traits());
    let m = p.new_memory(4096).unwrap();
    m.write(0, &[0x0f, 0x05, 0xeb, 0xfc]).unwrap();
    let s = p.address_space().unwrap();
    s.map(0x1000, &m, 0, 4096, Protection::READ_EXECUTE, true).unwrap();
    let mut c = p.new_context();
    let mut r = Registers { rip: 0x1000, ..Default::default() };
    for o in [Restore::Full, Restore::Partial] {
        let t = std::time::Instant::now();
        for _ in 0..20000 {
            let e = c.switch(&s, &mut r, SwitchOptions{restore:o, timeout: None}).unwrap();
            assert_eq!(e, Exit::SystemCall);
        }
        println!("{o:?} {:?}", t.elapsed() / 20000);
    }
}
