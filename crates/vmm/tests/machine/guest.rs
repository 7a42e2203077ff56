//! Kernels of a few bytes: 32-bit code at 1 MiB, entered by PVH.

use std::path::PathBuf;

/// Where the code lies.
pub const BASE: u32 = 0x10_0000;
/// Data that the code refers to lies this far behind its start.
pub const DATA: u32 = 0x800;

/// Code of a guest, put together piece by piece.
#[derive(Default)]
pub struct Code {
    bytes: Vec<u8>,
    data: Vec<u8>,
}

impl Code {
    pub fn new() -> Self {
        Self::default()
    }

    /// Instructions as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// `mov dx, port; mov al, value; out dx, al`
    pub fn out(self, port: u16, value: u8) -> Self {
        let [low, high] = port.to_le_bytes();
        self.raw(&[0x66, 0xba, low, high, 0xb0, value, 0xee])
    }

    /// Prints by one string instruction: `rep outsb`.
    pub fn print(mut self, text: &str) -> Self {
        let at = BASE + DATA + self.data.len() as u32;
        self.data.extend(text.as_bytes());
        self.raw(&[0xbe])
            .raw(&at.to_le_bytes())
            .raw(&[0xb9])
            .raw(&(text.len() as u32).to_le_bytes())
            .raw(&[0x66, 0xba, 0xf8, 0x03, 0xfc, 0xf3, 0x6e])
    }

    /// `Y` to the console if EAX is all ones, `N` otherwise.
    pub fn print_whether_all_ones(self) -> Self {
        // mov ecx, eax; mov al, 'Y'; cmp ecx, -1; je +2; mov al, 'N'; mov dx, 0x3f8; out dx, al
        self.raw(&[
            0x89, 0xc1, 0xb0, b'Y', 0x83, 0xf9, 0xff, 0x74, 0x02, 0xb0, b'N',
        ])
        .raw(&[0x66, 0xba, 0xf8, 0x03, 0xee])
    }

    /// Echoes the console until a line feed.
    pub fn echo_line(self) -> Self {
        self.raw(&[
            0x66, 0xba, 0xfd, 0x03, // wait: mov dx, line status
            0xec, // in al, dx
            0xa8, 0x01, // test al, data ready
            0x74, 0xf7, // jz wait
            0x66, 0xba, 0xf8, 0x03, // mov dx, data
            0xec, // in al, dx
            0xee, // out dx, al
            0x3c, 0x0a, // cmp al, '\n'
            0x75, 0xed, // jne wait
        ])
    }

    pub fn power_off(self) -> Self {
        self.out(0x600, 0x34).halt()
    }

    /// Halts for ever, with interrupts off.
    pub fn halt(self) -> Self {
        self.raw(&[0xfa, 0xf4, 0xeb, 0xfd])
    }

    pub fn spin(self) -> Self {
        self.raw(&[0xeb, 0xfe])
    }

    /// The guest as an ELF file with a PVH note.
    pub fn elf(&self) -> Vec<u8> {
        assert!(self.bytes.len() <= DATA as usize);
        let mut image = self.bytes.clone();
        image.resize(DATA as usize, 0xf4);
        image.extend(&self.data);
        Elf::new(image).build()
    }

    /// [`Code::elf`] in a file of its own in `folder`.
    pub fn write(&self, folder: &tempfile::TempDir) -> PathBuf {
        let path = folder.path().join("kernel");
        std::fs::write(&path, self.elf()).unwrap();
        path
    }
}

/// An ELF kernel whose every field can be wrong.
pub struct Elf {
    pub image: Vec<u8>,
    pub machine: u16,
    pub class: u8,
    pub address: u64,
    pub memory: Option<u64>,
    pub entry: u64,
    pub with_note: bool,
}

impl Elf {
    pub fn new(image: Vec<u8>) -> Self {
        Self {
            image,
            machine: 62,
            class: 2,
            address: BASE.into(),
            memory: None,
            entry: BASE.into(),
            with_note: true,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        const PT_LOAD: u32 = 1;
        const PT_NOTE: u32 = 4;
        let headers = 64 + 2 * 56;
        let mut note = Vec::new();
        for word in [4u32, 4, 18] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"Xen\0");
        note.extend((self.entry as u32).to_le_bytes());
        let note_kind = if self.with_note { PT_NOTE } else { 0 };
        let image_at = (headers + note.len()) as u64;

        let mut file = vec![0x7f, b'E', b'L', b'F', self.class, 1, 1, 0];
        file.resize(16, 0);
        file.extend(2u16.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        for word in [self.entry, 64, 0] {
            file.extend(word.to_le_bytes());
        }
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, 2, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let length = self.image.len() as u64;
        let in_memory = self.memory.unwrap_or(length);
        let segments = [
            (PT_LOAD, image_at, self.address, length, in_memory),
            (
                note_kind,
                headers as u64,
                0,
                note.len() as u64,
                note.len() as u64,
            ),
        ];
        for (kind, offset, address, length, memory) in segments {
            file.extend(kind.to_le_bytes());
            file.extend(7u32.to_le_bytes());
            for word in [offset, address, address, length, memory, 8] {
                file.extend(word.to_le_bytes());
            }
        }
        file.extend(note);
        file.extend(&self.image);
        file
    }
}
